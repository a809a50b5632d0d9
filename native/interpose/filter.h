// The pod's seccomp filter (seccomp(2)): installed before the program starts, inherited by everything it
// becomes. For now it answers one call: io_uring_setup(2) does not exist in a pod, because a ring's work
// passes by any filter and cannot be carried. No exceptions: used by virt-init.
#pragma once

namespace virt {

// How many filters a process of a pod has of ours; more are the program's own.
inline constexpr unsigned kOwnFilters = 1;

// Installs it in the calling thread, which needs CAP_SYS_ADMIN in its user namespace (so that no_new_privs
// can stay as it is). 0 or errno.
int install_filter();

}  // namespace virt
