// The rules of an isolated pod: what in it is read only, writable, hidden or its own. They are mounts in the pod's mount
// namespace, made before any program runs there, by one who alone may change them.
#pragma once

#include <string>

#include "init/protocol.h"
#include "init/step.h"
#include "sys/fd.h"

namespace virt::init {

// In PID 1, when /proc, /dev/pts and remaps are mounted: plan.mounts, in their order, and the loopback interface.
Step isolate(const protocol::LaunchPlan& plan);

// What a launcher gives as a stream was opened among its own mounts, where no rule holds: who has such a file for reading
// could open it for writing through /proc/self/fd, and a directory leads everywhere. So these are opened anew, by the
// path that leads to them in the pod; *fd is the new descriptor. Everything else stays as it is. 0 or errno, EXDEV where the
// pod does not see the file.
int reopen_in_pod(int given, UniqueFd* fd);

}  // namespace virt::init
