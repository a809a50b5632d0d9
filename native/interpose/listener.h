// Where the kernel asks about the calls that the filter selected (seccomp_unotify(2)). One thread reads.
// No exceptions: used by virt-init.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <vector>

#include "sys/fd.h"

namespace virt {

// A thread that stands before a call and waits for our word.
struct Question {
  uint64_t id = 0;
  pid_t tid = 0;  // as the reader's pid namespace has it
  uint32_t number = 0;
  uint64_t args[6] = {};
};

class Listener {
 public:
  explicit Listener(UniqueFd fd);

  [[nodiscard]] int fd() const { return fd_.get(); }
  // The next question. False if there is none after all: its thread was interrupted or killed meanwhile.
  bool receive(Question* question);
  // Lets the kernel make the call. False if the thread does not wait any more: it will ask again, or is gone. If true,
  // what was read of the thread until then was read of it, and of nobody who has taken its number.
  bool let_pass(const Question& question);

 private:
  UniqueFd fd_;
  std::vector<char> request_, answer_;  // as large as this kernel wants them
};

}  // namespace virt
