// Pairs of TCP and UDP sockets with addresses of our choosing (tcp(7), udp(7), ipv6(7)), for the thread of a stash. No
// exceptions: used by virt-init.
#pragma once

#include "relay/stash.h"

namespace virt {

// In `room`, which is the calling thread's network namespace.
int inet_pair(const StashRequest& request, StashRoom& room, StashPair* made);

}  // namespace virt
