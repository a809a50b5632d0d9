// Whether a call that was let pass has had its effect, by looking at what it was about. No exceptions: used by virt-init.
#pragma once

#include "interpose/recorder.h"

namespace virt {

// What is at a path now.
Seen look_at(const std::string& path, bool follow);
// Whether the call's path is followed if it is a symbolic link (man 2 of each call).
bool follows(const Call& call);
// Whether the call can have an effect, with what was there before.
bool may_change(const Call& call, const Seen& before);
Outcome outcome_of(const Watched& watched);

}  // namespace virt
