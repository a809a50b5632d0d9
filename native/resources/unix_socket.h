// Making unix sockets in a pod that is rebuilt, for unix_socket.cc and what fills their queues.
#pragma once

#include <functional>

#include "resources/rebuild_context.h"

namespace virt {

// Its descriptor in the seed. `type` as socket(2) takes it.
int make_unix_socket(RebuildContext& context, int type);

// Adds what `calls` adds, made in the directory a relative name was bound from: the whole path may be too long for an
// address. `record` is that of a bound socket.
void where_bound(Batch& batch, const Value& record, const std::function<void()>& calls);
// Adds a connect(2) of `fd` to a bound socket; gives its index.
size_t connect_to_bound(Batch& batch, int fd, const Value& record);

}  // namespace virt
