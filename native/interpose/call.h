// A call that a thread of the pod stands before, and what it is about: who makes it, which paths, address or process it
// means. Read from the caller's memory and /proc, inside the pod's namespaces, where paths and pids are what the program
// sees. No exceptions: used by virt-init.
#pragma once

#include <sys/socket.h>

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "interpose/calls.h"
#include "interpose/listener.h"
#include "sys/fd.h"

namespace virt {

// What is known of a process, until it executes another program.
struct Caller {
  pid_t pid = 0, host_pid = 0;  // host_pid: as the pod's parent namespace has it; 0 if it cannot be told
  std::string program, root;
};

struct Call {
  const InterposedCall* entry = nullptr;
  CallKind kind = CallKind::open;  // entry's, but an open for reading only is `read`
  Question question;
  std::shared_ptr<const Caller> who;
  uint64_t order = 0;  // what is asked later has more (Recorder::begin)
  int64_t realtime_ns = 0;
  std::string path, path2;  // absolute, as written; a unix socket's too ("@…" is abstract)
  int flags = 0;            // O_… or AT_…; of a kill the signal
  pid_t target = 0;         // of a kill; negative: a process group
  UniqueFd socket;          // a dup of the caller's
  sockaddr_storage address{};
  socklen_t address_size = 0;

  [[nodiscard]] uint64_t argument(int number) const {
    return number < 0 ? 0 : question.args[static_cast<size_t>(number)];
  }
};

// Makes Calls of questions. Any thread.
class CallReader {
 public:
  // `host_proc`: a descriptor of a /proc of the pod's parent namespace, or -1.
  explicit CallReader(int host_proc) : host_proc_(host_proc) {}
  // False if it cannot be told what the call is about; the kernel will say what is wrong with it.
  bool read(const Question& question, const InterposedCall& entry, Call* call);

 private:
  struct Known {
    std::shared_ptr<const Caller> caller;
    bool executes = false;  // it may be another program by now, or have another root
  };

  std::shared_ptr<const Caller> caller_of(pid_t tid);
  std::shared_ptr<const Caller> look_at_caller(pid_t tid);
  void expect_change(pid_t pid);
  bool read_file(Call* call);
  bool read_socket(Call* call);

  const int host_proc_;
  std::mutex mutex_;                          // all below; held for no system call
  uint64_t changes_ = 0;                      // how often somebody was about to become another program
  std::unordered_map<pid_t, Known> callers_;  // by thread
  std::unordered_map<pid_t, std::vector<pid_t>> threads_;  // of a process, those that are known
};

// The address's port of IP and IPv6, -1 of others.
int port_of(const sockaddr_storage& address);

}  // namespace virt
