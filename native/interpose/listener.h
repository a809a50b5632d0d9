// Where the kernel asks about the calls that the filter selected (seccomp_unotify(2)). Any thread may read,
// and any may answer. No exceptions: used by virt-init.
#pragma once

#include <sys/types.h>

#include <cstdint>

#include "sys/fd.h"

namespace virt {

// A thread that stands before a call and waits for our word.
struct Question {
  uint64_t id = 0;
  pid_t tid = 0;  // as the reader's pid namespace has it
  uint32_t number = 0;
  uint64_t args[6] = {};
};

// The answers give false if the thread does not wait any more: it will ask again, or is gone. If true, what was read of
// the thread until then was read of it, and of nobody who has taken its number.
class Listener {
 public:
  explicit Listener(UniqueFd fd);

  [[nodiscard]] int fd() const { return fd_.get(); }
  // The next question; waits for it. False if there is none after all: its thread was interrupted or killed meanwhile.
  bool receive(Question* question) const;
  // Whether the thread still waits.
  [[nodiscard]] bool waits(const Question& question) const;
  // Lets the kernel make the call.
  [[nodiscard]] bool let_pass(const Question& question) const;
  // The call is not made: it gives `value`, or fails with `error` if that is not 0.
  [[nodiscard]] bool answer(const Question& question, int64_t value, int error) const;
  // The call is not made: it gives a new descriptor of the caller's for what `fd` is (Linux 5.14).
  [[nodiscard]] bool inject(const Question& question, int fd, bool close_on_exec) const;

 private:
  [[nodiscard]] bool send(const Question& question, int64_t value, int error, uint32_t flags) const;

  UniqueFd fd_;
};

}  // namespace virt
