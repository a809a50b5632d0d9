// Pairs of unix sockets with names of our choosing (unix(7)), for the thread of a stash. No exceptions: used by virt-init.
#pragma once

#include "relay/stash.h"

namespace virt {

// `no_files`: 0, or the errno that a request with a path gets. Otherwise the caller's root is an empty file system.
int unix_pair(const StashRequest& request, int no_files, StashPair* made);

}  // namespace virt
