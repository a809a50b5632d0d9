// What waits in a unix socket: read without taking it, and put back.
#pragma once

#include "base/value.h"
#include "resources/capture_context.h"
#include "resources/handle.h"
#include "resources/rebuild_context.h"

namespace virt {

// Sets "queue" and "senders" in the handle's record, if something waits there. `type` as socket(2) takes it.
// A descriptor in flight is reported to the context.
void capture_unix_queue(Handle& handle, CaptureContext& context, int type);

// Sends what `queue` says through a descriptor of ours, the other end of the one it waited in.
void fill_unix_queue(int into, const Value& queue, int type);

// Puts back the datagrams that waited in a named socket, each sent by the socket of the pod that bears its sender's name; if that is
// gone, by one with that name, or, where the name leads to a file, a nameless one.
void fill_datagrams(const Value& record, RebuildContext& context, int type);

}  // namespace virt
