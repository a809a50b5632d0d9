// What programs in an isolated pod may not do, so that its mounts and namespaces hold: rights they do not have, and
// namespaces they cannot make. init itself keeps its own.
#pragma once

#include "init/protocol.h"
#include "init/step.h"

namespace virt::init {

// unshare(2) of `flags` and a user namespace in which every id is the same as outside: for root, whose rights then
// end at the pod's namespaces (user_namespaces(7)). In a process without threads.
Step enter_with_all_ids(int flags);

// In PID 1, before anything runs in the pod: nobody in it can make user namespaces, in which mounts could be seen from
// another side; what root owns in /proc beyond the pod's processes cannot be written. No-op unless isolated.
Step limit_namespaces(const protocol::LaunchPlan& plan);

// In a child that is about to execute a program: of its rights (capabilities(7)) those that could undo what init has made
// go for good. 0 or errno.
int limit_rights();

// 127.0.0.1 and ::1 of an empty network namespace.
Step raise_loopback();

}  // namespace virt::init
