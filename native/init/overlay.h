// Files that only this pod sees: overlays over directories of the host, whose upper directories lie in the pod's store
// (mount(8), overlayfs; `userxattr`, Linux 5.11), and single files mounted over others. Nothing is changed on the host.
#pragma once

#include <string>
#include <vector>

#include "init/protocol.h"
#include "init/step.h"
#include "sys/fd.h"

namespace virt::init {

// The layers of a plan, mounted in between its remaps: each lies over what a remap shows, and under the remaps below it.
class Layers {
 public:
  explicit Layers(const protocol::LaunchPlan& plan);
  // Takes hold of everything in the store, before anything is mounted over that.
  Step open();
  // Mounts those that have to lie under a remap to `path`.
  Step mount_above(const std::string& path);
  // That remap is mounted.
  void passed(const std::string& path);
  Step mount_rest();

 private:
  struct One {
    const protocol::Layer* plan = nullptr;
    UniqueFd source;
    bool mounted = false;
  };
  static Step mount(One& one);

  const protocol::LaunchPlan& plan_;
  std::vector<One> list_;
  std::vector<std::string> to_come_;  // remaps
};

}  // namespace virt::init
