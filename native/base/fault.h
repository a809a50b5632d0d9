// Named fault points: VIRT_RUN_FAULT=name[@n][:error|:kill|:hang] makes the named place fail, every time or only the nth
// time that the process comes by, so that tests can show that a failure there harms nobody. `error` (the default) throws
// an OsError with EIO, `kill` ends the whole process with SIGKILL as a crash or the OOM killer would, `hang` stops the
// calling thread for good.
#pragma once

namespace virt {

// Does nothing unless VIRT_RUN_FAULT names this place. Costs one getenv per call; not for hot loops.
void fault_point(const char* name);

}  // namespace virt
