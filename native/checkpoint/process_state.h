// What a process is besides its memory and handles, as the image tells it. Two halves: what /proc and ptrace
// show from outside, and what only the process itself can ask (through a Foothold).
#pragma once

#include "base/value.h"
#include "checkpoint/foothold.h"
#include "checkpoint/freeze.h"
#include "resources/capture_context.h"

namespace virt {

// From outside: names, tree, credentials, limits, scheduling, registers, pending signals. Reports what cannot
// be carried to the context.
Value outside_state(FrozenPod& pod, FrozenProcess& process, CaptureContext& context);

// Adds to the record: signal actions, alternate stacks, timers, thread addresses, prctl settings, the break.
void inside_state(FrozenProcess& process, Foothold& foothold, Value& record);

// Adds to the records of a parent's stopped children whether it has been told of the stop. `records` lie as
// the pod's processes do.
void ask_about_stops(const FrozenProcess& parent, Foothold& foothold, const FrozenPod& pod,
                     std::vector<Value>& records);

// A thread that stands in the middle of the vDSO's code is stepped out of it: the code may be another
// elsewhere.
void step_out_of_vdso(FrozenProcess& process, const Vma& vdso);

}  // namespace virt
