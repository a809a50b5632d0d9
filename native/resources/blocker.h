// A blocker is something that keeps a pod from being carried: named in full, collected, told all at once. In
// a capture it is a result, not an error.
#pragma once

#include <optional>
#include <string>

#include "base/value.h"

namespace virt {

struct Blocker {
  std::string code;    // permanent: errors.ts lists them
  std::string reason;  // what it is: "a connection to outside the pod"
  std::string hint;    // what to do about it
  std::optional<int> pid, fd;
  std::string kind, path;

  [[nodiscard]] Value to_value() const;
};

}  // namespace virt
