// Turns questions into effects. A call that is let pass tells nobody how it ended: so the recorder looks at what
// the call would change before it is made, and again afterwards. What has changed is an effect; what has not when
// its thread is at another call already, had none.
// Lives in virt-init's listener thread, inside the pod's namespaces, where paths and pids are what the program
// sees. No exceptions.
#pragma once

#include <sys/socket.h>
#include <sys/stat.h>

#include <cstdint>
#include <deque>
#include <string>
#include <unordered_map>

#include "interpose/calls.h"
#include "interpose/journal.h"
#include "interpose/listener.h"
#include "sys/fd.h"

namespace virt {

class Recorder {
 public:
  Recorder(Listener& listener, Journal& journal) : listener_(listener), journal_(journal) {}

  // Answers it. What is to be said of it is said by catch_up().
  void handle(const Question& question);
  // Writes down what is known, and looks again at calls that were let pass; for the last time if `all` are over.
  void catch_up(bool all);
  // Calls that wait for catch_up().
  [[nodiscard]] size_t behind() const { return pending_.size() + done_.size(); }
  // Nothing is recorded while a pod is being rebuilt: what happens then happened before.
  void pause(bool paused) { paused_ = paused; }

 private:
  // What is known of a process, until it executes another program.
  struct Caller {
    pid_t pid = 0;
    std::string program, root;
  };
  // What a path leads to.
  struct Seen {
    bool there = false;
    uint64_t device = 0, inode = 0;
    uint32_t mode = 0, uid = 0, gid = 0;
    int64_t size = 0;
  };
  struct Pending {
    const RecordedCall* call = nullptr;
    Question question;
    Caller who;
    int64_t realtime_ns = 0, since_ns = 0;
    std::string path, path2;
    Seen before, before2;
    int flags = 0;
    UniqueFd socket;  // a dup, for as long as it takes
    sockaddr_storage address{};
    socklen_t address_size = 0;
  };
  enum class Outcome { open, done, nothing };

  const Caller& caller_of(pid_t tid);
  bool describe(const Question& question, const RecordedCall& call, Pending* pending);
  bool describe_file(Pending* pending);
  bool describe_socket(Pending* pending);
  [[nodiscard]] Outcome outcome(const Pending& pending) const;
  [[nodiscard]] static Outcome outcome_of_socket(const Pending& pending);
  void settle(Pending& pending, bool last);
  static bool is_over(const Pending& pending, int64_t now_ns);
  void forget_settled();
  void write_down(const Pending& pending);
  static Seen look(const std::string& path, bool follow);

  Listener& listener_;
  Journal& journal_;
  std::deque<Pending> pending_;
  std::deque<Pending> done_;  // effects that are not written down yet
  std::unordered_map<pid_t, Caller> callers_;
  std::unordered_map<std::string, int64_t> sent_;  // who sent where, when it was last written down
  bool paused_ = false;
};

}  // namespace virt
