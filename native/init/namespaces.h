// The pod's namespaces and what is mounted in them (namespaces(7), user_namespaces(7), time_namespaces(7)).
#pragma once

#include "init/protocol.h"
#include "init/step.h"

namespace virt::init {

// In the process that is about to fork PID 1: user (unless we are really root), pid, mount, ipc and uts.
Step enter_namespaces(const protocol::LaunchPlan& plan);

// In PID 1: an own /proc and /dev/pts, remaps, host name, and the clocks of a pod that is being rebuilt.
Step furnish(const protocol::LaunchPlan& plan);

// In a holder: nothing that the pod had mounted stays mounted for its sake. Best effort.
void leave_mounts();

// Removes the mount points that furnish had to make on the host. Best effort; the directories were empty.
void remove_mount_points();

}  // namespace virt::init
