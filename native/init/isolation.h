// The rules of an isolated pod: what in it is read only, writable, hidden or its own. They are mounts in the pod's mount
// namespace, made before any program runs there, by one who alone may change them.
#pragma once

#include "init/protocol.h"
#include "init/step.h"

namespace virt::init {

// In PID 1, when /proc, /dev/pts and remaps are mounted: plan.mounts, in their order, and the loopback interface.
Step isolate(const protocol::LaunchPlan& plan);

}  // namespace virt::init
