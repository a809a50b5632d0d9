// Starting virt-init.
#pragma once

#include <string>

#include "init/protocol.h"
#include "sys/fd.h"

namespace virt {

struct LaunchFiles {
  std::string init_program;  // path of virt-init
  std::string socket_path;   // where it shall listen
  int stdio[3] = {0, 1, 2};  // descriptors of ours that become its standard streams
};

// Spawns it and gives our end of its first control connection; events (kForked, kStarted or kFailed) follow
// there. Blocks for the few milliseconds it takes to make the namespaces.
UniqueFd launch(const protocol::LaunchPlan& plan, const LaunchFiles& files);

// The soft limit of open files our parent runs with. Node raises its own to the hard limit; a program should
// not inherit that.
uint64_t parent_open_files();

}  // namespace virt
