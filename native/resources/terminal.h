// Pseudo-terminals (pty(7)): settings, size, session and foreground group.
#pragma once

#include "resources/capture_context.h"

namespace virt {

// The image's object for the terminal with this number, made from `master` (ours). The pod's own terminal is
// always in the image, even if no fd shows it: it may be a session's controlling terminal all the same.
int terminal_object(unsigned index, int master, bool kept_by_init, CaptureContext& context);

}  // namespace virt
