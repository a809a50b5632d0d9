// The sizes of memfds. They are filled by whole pages and mapped by whole pages; the file may end within one.
#pragma once

#include "base/value.h"
#include "resources/rebuild_context.h"

namespace virt {

// Gives every memfd of the image's memory objects its exact size: after they are filled, before they are
// sealed.
void size_memfds(const Value& memory, const RebuildContext& context);

}  // namespace virt
