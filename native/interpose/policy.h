// What of a pod's side effects is recorded.
#pragma once

#include <cstdint>

namespace virt {

enum class Recording : uint32_t {
  kNone = 0,     // nothing is interposed
  kDefault = 1,  // what changes the world outside: files, addresses, programs
};

}  // namespace virt
