#include "memory/write_watch.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>

#include <algorithm>
#include <cerrno>

#include "base/error.h"
#include "memory/pagemap_scan.h"
#include "sys/file.h"
#include "sys/proc.h"

// Kernel 6.4 and 6.7; Debian 12's headers are older.
#ifndef UFFD_FEATURE_WP_UNPOPULATED
#define UFFD_FEATURE_WP_UNPOPULATED (1 << 13)
#endif
#ifndef UFFD_FEATURE_WP_ASYNC
#define UFFD_FEATURE_WP_ASYNC (1 << 15)
#endif

namespace virt {

WriteWatch::WriteWatch(pid_t host_pid, UniqueFd userfaultfd)
    : userfaultfd_(std::move(userfaultfd)), pagemap_(open_file(proc_path(host_pid, "pagemap"), O_RDONLY)) {
  uffdio_api api{};
  api.api = UFFD_API;
  api.features = UFFD_FEATURE_WP_ASYNC | UFFD_FEATURE_WP_UNPOPULATED;
  check(ioctl(userfaultfd_.get(), UFFDIO_API, &api), "ioctl", "watching a process's writes");
}

bool WriteWatch::watch(uint64_t start, uint64_t end) const {
  uffdio_register what{};
  what.range = {start, end - start};
  what.mode = UFFDIO_REGISTER_MODE_WP;
  return ioctl(userfaultfd_.get(), UFFDIO_REGISTER, &what) == 0;
}

bool WriteWatch::watches(uint64_t start, uint64_t end) const {
  PageRegion region{};
  ScanArgument a{};
  a.size = sizeof a;
  a.flags = kScanCheckAsync;
  a.start = start;
  a.end = end;
  a.vec = reinterpret_cast<uint64_t>(&region);
  a.vec_len = 1;
  a.max_pages = 1;
  a.return_mask = kPageIsWritten;
  // EPERM: a mapping that is not watched. The first page decides: it is one mapping.
  return ioctl(pagemap_.get(), kPagemapScan, &a) >= 0;
}

std::vector<PageRange> WriteWatch::take(uint64_t start, uint64_t end) const {
  return written(start, end, kScanWriteProtect);
}

uint64_t WriteWatch::written_bytes(uint64_t start, uint64_t end) const {
  uint64_t bytes = 0;
  for (const PageRange& r : written(start, end, 0)) bytes += r.end - r.start;
  return bytes;
}

std::vector<PageRange> WriteWatch::written(uint64_t start, uint64_t end, uint64_t flags) const {
  std::vector<PageRange> out;
  std::vector<PageRegion> regions(1024);
  while (start < end) {
    ScanArgument a{};
    a.size = sizeof a;
    a.flags = flags;
    a.start = start;
    a.end = end;
    a.vec = reinterpret_cast<uint64_t>(regions.data());
    a.vec_len = regions.size();
    a.category_mask = kPageIsWritten | kPageIsZero | kPageIsFile;
    a.category_inverted = kPageIsZero | kPageIsFile;
    a.category_anyof_mask = kPageIsPresent | kPageIsSwapped;
    a.return_mask = kPageIsHuge;
    const int n = ioctl(pagemap_.get(), kPagemapScan, &a);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == ESRCH) return {};
    check(n, "ioctl", "finding written pages");
    for (int i = 0; i < n; ++i) {
      const PageRegion& r = regions[static_cast<size_t>(i)];
      const bool huge = (r.categories & kPageIsHuge) != 0;
      if (!out.empty() && out.back().end == r.start && out.back().huge == huge) {
        out.back().end = r.end;
      } else {
        out.push_back({r.start, r.end, huge});
      }
    }
    // As in PageScanner: walk_end alone is not to be trusted.
    const uint64_t reached = std::max(a.walk_end, n > 0 ? regions[static_cast<size_t>(n) - 1].end : start);
    if (reached <= start) break;
    start = reached;
  }
  return out;
}

}  // namespace virt
