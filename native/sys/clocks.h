// Clocks across time namespaces (time_namespaces(7)). All values in nanoseconds.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <ctime>
#include <string>

namespace virt {

// Now, by clock_gettime(2).
inline int64_t clock_ns(clockid_t clock) {
  timespec t{};
  clock_gettime(clock, &t);
  return int64_t{t.tv_sec} * 1'000'000'000 + t.tv_nsec;
}
inline int64_t realtime_ns() { return clock_ns(CLOCK_REALTIME); }
inline int64_t monotonic_ns() { return clock_ns(CLOCK_MONOTONIC); }

enum class Clock { monotonic, boottime };

// The clock as the host's first time namespace shows it, whatever namespace we are in ourselves.
int64_t host_clock_ns(Clock clock);
// What the children of this process see in addition to the host's clock.
int64_t clock_offset_ns(pid_t host_pid, Clock clock);

}  // namespace virt
