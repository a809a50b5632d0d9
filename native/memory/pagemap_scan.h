// ioctl(PAGEMAP_SCAN) as kernel 6.7 has it (include/uapi/linux/fs.h); Debian 12's headers are older.
#pragma once

#include <sys/ioctl.h>

#include <cstdint>

namespace virt {

struct PageRegion {
  uint64_t start, end, categories;
};
struct ScanArgument {
  uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
  uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};
static_assert(sizeof(ScanArgument) == 96);
inline const unsigned long kPagemapScan = _IOWR('f', 16, ScanArgument);
inline constexpr uint64_t kPageIsWritten = 1 << 1, kPageIsFile = 1 << 2, kPageIsPresent = 1 << 3,
                          kPageIsSwapped = 1 << 4, kPageIsZero = 1 << 5, kPageIsHuge = 1 << 6,
                          kPageIsGuard = 1 << 8;
inline constexpr uint64_t kScanWriteProtect = 1 << 0, kScanCheckAsync = 1 << 1;

}  // namespace virt
