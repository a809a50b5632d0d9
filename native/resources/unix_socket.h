// Making unix sockets in a pod that is rebuilt, for unix_socket.cc and what fills their queues.
#pragma once

#include <sys/socket.h>

#include <functional>
#include <string>

#include "resources/rebuild_context.h"

namespace virt {

// Its descriptor in the seed. `type` as socket(2) takes it.
int make_unix_socket(RebuildContext& context, int type);

// Adds what `calls` adds, made in a directory of the pod ("": where the seed is).
void in_directory(Batch& batch, const std::string& directory, const std::function<void()>& calls);
// Adds what `calls` adds, given the address of the socket of this name: abstract, or a path, however long.
void with_address(Batch& batch, const std::string& name,
                  const std::function<void(RemoteAddress, socklen_t)>& calls);

}  // namespace virt
