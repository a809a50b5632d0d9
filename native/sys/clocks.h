// Clocks across time namespaces (time_namespaces(7)). All values in nanoseconds.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>

namespace virt {

enum class Clock { monotonic, boottime };

// The clock as the host's first time namespace shows it, whatever namespace we are in ourselves.
int64_t host_clock_ns(Clock clock);
// What the children of this process see in addition to the host's clock.
int64_t clock_offset_ns(pid_t host_pid, Clock clock);

}  // namespace virt
