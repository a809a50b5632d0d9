// The capture of a pod: freeze → survey → read, and then the caller's word: thaw, or let init kill it all.
// Lives on the engine's thread. Destroying it thaws the pod, whatever state it is in.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/value.h"
#include "checkpoint/freeze.h"
#include "checkpoint/memory_map.h"
#include "memory/page_store.h"
#include "resources/capture_context.h"

namespace virt {

struct CaptureOptions {
  pid_t init_host_pid = 0;
  std::vector<Inode> streams;  // what the launcher gave, in threes
  int terminal_master = -1;    // the pod's terminal: init's descriptor of its master, in our table
  unsigned terminal_index = 0;
  std::set<std::string> drop;  // kinds the user is willing to lose
  CaptureContext::TcpPolicy tcp;
  Precopy* precopy = nullptr;  // what was sent while the pod ran
  bool arm = false;            // it is to watch the pod's processes from now on
  bool hold = false;           // CaptureContext::holds
  bool leave = false;  // relays stand still since far() was called, and give their states again each time
  // What leads through holders elsewhere (CaptureContext::far), asked when everything stands still.
  std::function<FarWays()> far;
  std::set<std::string> remapped;  // paths of the pod where something else is, by rule
  int freeze_timeout_ms = 5000;
  unsigned threads = 2;
  // open(2) inside the pod, by init. Nothing if that fails.
  std::function<UniqueFd(const std::string& path, int flags)> open_in_pod;
  // A socket (socket(2)) of the pod's network namespace, where it has one of its own.
  std::function<UniqueFd(int family, int type, int protocol)> socket_in_pod;
};

class Foothold;

class Capture {
 public:
  explicit Capture(CaptureOptions options);
  ~Capture();

  void freeze();
  // Everything but pages and file contents. The record has "blockers", never empty without reason to go on.
  Value survey();
  // Pages into the store and pages.sum and contents of unlinked files (carried-N.bin) into `directory`. Completes the record: runs of
  // pages, pages in each part, carried files.
  void read(PageStore& store, int directory, Value& record, const std::atomic<bool>& stop,
            std::atomic<uint64_t>& done_bytes);
  [[nodiscard]] uint64_t resident_bytes() const { return memory_.resident_bytes; }
  // After survey(): [{give, uses: [{pid, fd, closeOnExec, watched: [{epoll, handle, events, data}]}]}], `give` a record of
  // kind "given" or {handle}.
  void remap_descriptors(const Value& changes);
  // After survey(): what init is to keep.
  [[nodiscard]] const std::vector<Handle>& handles() const { return handles_; }
  // After freeze(): which process (its number in the pod) has the socket of this inode, and as which descriptor.
  [[nodiscard]] std::optional<std::pair<int, int>> user_of_socket(uint64_t inode) const;
  void thaw();
  // The pod was killed: wait for what we traced, so that nothing stays a zombie on our account.
  void reap();

 private:
  void collect_handles();
  void unveil();
  bool make_dumpable(FrozenProcess& process);
  void veil() noexcept;
  void check_shared_tables();
  void ask_close_on_exec(size_t process, Foothold& foothold);
  void capture_handles();
  void take_far_queues();
  void survey_sysv();
  Value clocks() const;
  void carry_files(int directory, Value& record);

  CaptureOptions options_;
  FrozenPod pod_;
  std::vector<FrozenProcess*> unveiled_;  // made dumpable for the capture
  std::unique_ptr<CaptureContext> context_;
  std::vector<Handle> handles_;
  std::vector<std::vector<Value>> fds_;    // per process: [fd, handle, close on exec]
  std::vector<std::vector<Value>> locks_;  // per process: POSIX locks
  SurveyedMemory memory_;
};

}  // namespace virt
