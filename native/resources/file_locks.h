// File locks: flock(2), and the POSIX and open-file-description locks of fcntl(2).
#pragma once

#include <vector>

#include "resources/capture_context.h"
#include "resources/rebuild_context.h"

namespace virt {

// Locks that belong to the handle itself (flock, OFD) go into its record; POSIX locks belong to a process and
// are returned, one Value each, with the fd they were seen on.
std::vector<Value> capture_locks(Handle& handle, const HandleUse& use, const ProcFields& fdinfo,
                                 CaptureContext& context);

// flock and OFD locks, on a descriptor of ours for the very description. A lock that somebody else holds now
// is ERR_LOCKED.
void restore_handle_locks(int fd, const Value& record);

}  // namespace virt
