// Making unix sockets in a pod that is rebuilt, for unix_socket.cc and what fills their queues.
#pragma once

#include "resources/rebuild_context.h"

namespace virt {

// Its descriptor in the seed. `type` as socket(2) takes it.
int make_unix_socket(RebuildContext& context, int type);

}  // namespace virt
