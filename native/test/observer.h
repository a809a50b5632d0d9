// A program that notices when something was done to it. It runs in a forked child, in several threads: one
// keeps every register at a known value and receives queued signals in order, the others wait in calls that a
// stop interrupts. What it sees lies in memory shared with the test.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <string>

#include "test/support.h"

namespace virt::test {

struct Observed {
  // All of them grow as long as the program is well.
  std::atomic<uint64_t> spins{0}, signals{0}, naps{0}, polls{0}, reads{0};
  // The first thing that was not as it should be: a line of observer.cc, and a value that says more.
  std::atomic<int> wrong_line{0};
  std::atomic<int64_t> wrong_value{0};
  // Waits that failed with EINTR although no signal came.
  std::atomic<uint64_t> interrupted{0};
  std::atomic<bool> ready{false};
};

class Observer {
 public:
  Observer();
  [[nodiscard]] pid_t pid() const { return child_.pid(); }
  [[nodiscard]] Observed& seen() { return *seen_; }
  // Waits until each thread has gone on a few times. Empty, or what is wrong: a register, a lost signal, a
  // thread that stands still, death.
  [[nodiscard]] std::string wrong_after_going_on();

 private:
  Shared<Observed> seen_;
  Child child_;
};

}  // namespace virt::test
