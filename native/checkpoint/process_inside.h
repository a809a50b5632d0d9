// What only a process itself can ask of what it is, through a Foothold: the other half of process_state.h.
#pragma once

#include <vector>

#include "base/value.h"
#include "checkpoint/foothold.h"
#include "checkpoint/freeze.h"

namespace virt {

// Adds to the record: signal actions, alternate stacks, timers, thread addresses, prctl settings, the break.
void inside_state(FrozenProcess& process, Foothold& foothold, Value& record);

// Adds to the records of a parent's stopped children whether it has been told of the stop: wait(2) tells it
// once of each, and only its own wait can say. `records` lie as the pod's processes do.
void ask_about_stops(const FrozenProcess& parent, Foothold& foothold, const FrozenPod& pod,
                     std::vector<Value>& records);

// A thread that stands in the middle of the vDSO's code is stepped out of it: the code may be another
// elsewhere.
void step_out_of_vdso(FrozenProcess& process, const Vma& vdso);

}  // namespace virt
