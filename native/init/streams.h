// The standard streams that an isolated pod is given.
#pragma once

#include "sys/fd.h"

namespace virt::init {

// What a launcher gives as a stream was opened among its own mounts, where no rule holds: who has such a file for reading
// could open it for writing through /proc/self/fd, and a directory leads everywhere. So these are opened anew, by the
// path that leads to them in the pod; *fd is the new descriptor. Pipes, sockets, terminals, and files that are given to be
// written stay as they are. 0 or errno, EXDEV where the pod does not see the file.
int reopen_in_pod(int given, UniqueFd* fd);

}  // namespace virt::init
