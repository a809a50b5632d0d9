// What a process is besides its memory and handles, as the image tells it: the half that /proc and ptrace show
// from outside. What only the process itself can ask is in process_inside.h.
#pragma once

#include "base/value.h"
#include "checkpoint/freeze.h"
#include "resources/capture_context.h"

namespace virt {

// A seccomp filter (seccomp(2)) beside ours, or the strict mode: any call we make it do might kill it.
bool has_own_filter(const ProcFields& status);

// Names, tree, credentials, limits, scheduling, registers, pending signals. Reports what cannot be carried to
// the context.
Value outside_state(FrozenPod& pod, FrozenProcess& process, CaptureContext& context);

}  // namespace virt
