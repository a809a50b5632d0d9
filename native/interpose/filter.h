// The pod's seccomp filter (seccomp(2)): installed before the program starts, inherited by everything it
// becomes. It answers one call itself: io_uring_setup(2) does not exist in a pod, because a ring's work
// passes by any filter and cannot be carried. Selected calls go to a listener (seccomp_unotify(2)); all others
// stay on the kernel's fast path. In a pod without network it also keeps the program from the address families that
// network namespaces do not separate. No exceptions: used by virt-init.
#pragma once

#include "interpose/calls.h"
#include "sys/fd.h"

namespace virt {

// How many filters a process of a pod has of ours; more are the program's own.
inline constexpr unsigned kOwnFilters = 1;

// Which sockets a program may make.
enum class Sockets {
  kAny,
  kSeparated,  // unix(7), ip(7), ipv6(7), netlink(7) and packet(7) alone: those that a network namespace separates
};

// Installs it in the calling thread, which needs CAP_SYS_ADMIN in its user namespace (so that no_new_privs
// can stay as it is). 0 or errno; with calls to select *listener is where the kernel asks. Where calls are selected, or
// sockets separated, those of other architectures (32-bit programs, x32) do not exist: their numbers mean something else.
int install_filter(KindSet selected, Sockets sockets, UniqueFd* listener);

}  // namespace virt
