// Threads of virt-init take numbers of the pod's pid namespace. Low ones are the program's: the first program is pid 2, and a
// pod that is rebuilt has its own again. While one of these lives, new threads get the last numbers there are
// (proc_sys_kernel(5), ns_last_pid; pid_namespaces(7)); where that is not to be had, the next.
#pragma once

namespace virt::init {

class HighPids {
 public:
  // Room for so many, below others of ours.
  explicit HighPids(int threads);
  HighPids(const HighPids&) = delete;
  HighPids& operator=(const HighPids&) = delete;
  ~HighPids();

 private:
  long before_;
};

}  // namespace virt::init
