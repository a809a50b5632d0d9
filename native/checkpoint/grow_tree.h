// Growing the process tree from the seed: the steps were planned above (src/image/tree.ts) and are only
// carried out here, each by a remote system call in the process that has to make it.
#pragma once

#include <map>

#include "checkpoint/grown.h"

namespace virt {

class Tree {
 public:
  Tree(Region region, GrownProcess seed);

  // Steps: {op: "fork", by, pid, sibling?}, {op: "setsid", pid}, {op: "setpgid", pid, group},
  // {op: "subreaper", pid, on}, {op: "name", pid, comm}, {op: "exit", pid, status}, {op: "reap", by, pid}.
  // `by` 0 is the seed.
  void grow(const Value& steps);

  [[nodiscard]] GrownProcess& seed() { return at(0); }
  [[nodiscard]] GrownProcess& at(pid_t pid);
  [[nodiscard]] std::map<pid_t, GrownProcess>& processes() { return processes_; }
  [[nodiscard]] const Region& region() const { return region_; }
  // The seed has done its work.
  void end_seed();

  // One remote call that must succeed.
  template <typename... Args>
  int64_t must(GrownProcess& p, const char* call, const char* doing, long number, Args... args) {
    Batch b(p.agent->site());
    const size_t i = b.call(number, args...);
    p.agent->run(p.borrow(region_), b);
    return b.must(i, call, doing);
  }

 private:
  void fork(const Value& step);
  void end(pid_t pid, int status);

  Region region_;
  std::map<pid_t, GrownProcess> processes_;
};

}  // namespace virt
