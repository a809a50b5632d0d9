// How virt-init fails: a fixed record of the step and the errno, told to the supervisor over the control
// socket. virt-init has no exceptions; a step that cannot be done ends the making of the pod.
#pragma once

#include <cerrno>

namespace virt::init {

struct Step {
  int error = 0;          // errno; 0 means done
  const char* what = "";  // verb phrase: "mounting /proc"
  [[nodiscard]] bool failed() const { return error != 0; }
};

inline Step done() { return {}; }
inline Step failed(const char* what) { return {errno != 0 ? errno : EIO, what}; }

}  // namespace virt::init
