// Where things lie in the memory region that init's seed makes and the engine uses (checkpoint/grown.h).
#pragma once

#include <cstdint>

namespace virt::init {

inline constexpr uint64_t kRegionCode = 0, kRegionCommit = 4096, kRegionData = 8192;

}  // namespace virt::init
