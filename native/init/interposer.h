// The interposer in virt-init: a thread that answers the kernel's questions about the calls that the pod's filter
// selected, and keeps the journal. It serves every process of the pod, whoever watches; it never waits for a supervisor.
#pragma once

#include <atomic>

#include "interpose/filter.h"
#include "interpose/policy.h"
#include "sys/fd.h"

namespace virt::init {

class Interposer {
 public:
  // Starts the thread, then puts the filter on the calling one, so that everything the pod becomes inherits it and the
  // thread itself stays free. 0 or errno. `paused`: nothing is recorded until go_on().
  int start(Recording recording, Sockets sockets, int state_dir, bool paused);
  void go_on() { paused_ = false; }
  // When nothing runs any more: returns when everything that has happened is in the journal, or after a second.
  void catch_up();
  [[nodiscard]] bool runs() const { return runs_; }

 private:
  static void* thread(void* self);
  void serve();

  std::atomic<bool> paused_ = false;
  bool runs_ = false;
  int state_dir_ = -1;
  bool real_root_ = false;
  UniqueFd news_;               // the listener's number comes through here
  UniqueFd asked_, caught_up_;  // eventfd(2)
};

}  // namespace virt::init
