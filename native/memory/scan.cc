#include "memory/scan.h"

#include <fcntl.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <cerrno>

#include "base/error.h"
#include "memory/pagemap_scan.h"
#include "sys/file.h"
#include "sys/proc.h"

namespace virt {
namespace {

// Bits of a pagemap entry, proc(5).
constexpr uint64_t kEntryPresent = 1ULL << 63, kEntrySwapped = 1ULL << 62, kEntryFile = 1ULL << 61,
                   kEntryGuard = 1ULL << 58;

[[noreturn]] void failed(const char* call, int error) {
  throw OsError(error == ESRCH ? "ERR_PROCESS_GONE" : "ERR_SYSCALL", call, error,
                "finding the pages of a mapping");
}

void append(std::vector<PageRange>* out, const PageRange& r) {
  if (!out->empty() && out->back().end == r.start && out->back().huge == r.huge &&
      out->back().guard == r.guard && out->back().unwritten == r.unwritten &&
      out->back().absent == r.absent) {
    out->back().end = r.end;
  } else {
    out->push_back(r);
  }
}

}  // namespace

PageScanner::PageScanner(pid_t host_pid, bool by_ioctl)
    : pagemap_(open_file(proc_path(host_pid, "pagemap"), O_RDONLY)), by_ioctl_(by_ioctl) {}

std::vector<PageRange> PageScanner::scan(uint64_t start, uint64_t end, bool own_only,
                                         bool ask_written) const {
  std::vector<PageRange> out;
  if (!by_ioctl_ || !scan_by_ioctl(start, end, own_only, ask_written, &out)) {
    out.clear();
    scan_by_reading(start, end, own_only, &out);
  }
  return out;
}

bool PageScanner::scan_by_ioctl(uint64_t start, uint64_t end, bool own_only, bool ask_written,
                                std::vector<PageRange>* out) const {
  std::vector<PageRegion> regions(1024);
  const auto first_entry = static_cast<off_t>(start / kPageBytes * 8);
  while (start < end) {
    ScanArgument a{};
    a.size = sizeof a;
    a.start = start;
    a.end = end;
    a.vec = reinterpret_cast<uint64_t>(regions.data());
    a.vec_len = regions.size();
    a.category_mask = kPageIsZero | (own_only ? kPageIsFile : 0);
    a.category_inverted = a.category_mask;
    a.category_anyof_mask = kPageIsPresent | kPageIsSwapped;
    a.return_mask = kPageIsHuge | (asks_for_guards_ ? kPageIsGuard : 0) |
                    (ask_written ? kPageIsWritten | kPageIsPresent : 0);
    const int n = ioctl(pagemap_.get(), kPagemapScan, &a);
    if (n < 0) {
      if (errno == EINTR) continue;
      if (errno == EINVAL && asks_for_guards_) {
        asks_for_guards_ = false;
        continue;
      }
      if (errno == ENOTTY || errno == EINVAL) return false;
      failed("ioctl", errno);
    }
    for (int i = 0; i < n; ++i) {
      const PageRegion& r = regions[static_cast<size_t>(i)];
      PageRange range{r.start, r.end, (r.categories & kPageIsHuge) != 0, (r.categories & kPageIsGuard) != 0};
      range.unwritten = ask_written && (r.categories & kPageIsWritten) == 0;
      range.absent = ask_written && (r.categories & kPageIsPresent) == 0;
      append(out, range);
    }
    // walk_end alone is not to be trusted: where a walk filled the kernel's own buffer (512 ranges) before it
    // came to its end, it still says where that happened. What was reported lies behind us in any case.
    const uint64_t reached = std::max(a.walk_end, n > 0 ? regions[static_cast<size_t>(n) - 1].end : start);
    if (reached <= start) break;
    start = reached;
  }
  // Of memory that is gone some kernels say ESRCH, others that it is empty (both seen with 6.18): reading an entry tells.
  uint64_t entry;
  if (pread(pagemap_.get(), &entry, sizeof entry, first_entry) != sizeof entry) failed("ioctl", ESRCH);
  return true;
}

void PageScanner::scan_by_reading(uint64_t start, uint64_t end, bool own_only,
                                  std::vector<PageRange>* out) const {
  std::vector<uint64_t> entries(8192);
  while (start < end) {
    const size_t want = std::min<uint64_t>(entries.size(), (end - start) / kPageBytes);
    const ssize_t n =
        pread(pagemap_.get(), entries.data(), want * 8, static_cast<off_t>(start / kPageBytes * 8));
    if (n < 0 && errno == EINTR) continue;
    // Nothing to be read means that the memory is gone, not that it is empty.
    if (n <= 0) failed("pread", n < 0 ? errno : ESRCH);
    const size_t got = static_cast<size_t>(n) / 8;
    for (size_t i = 0; i < got; ++i) {
      const uint64_t e = entries[i];
      const bool guard = (e & kEntryGuard) != 0;
      if (!guard && (e & (kEntryPresent | kEntrySwapped)) == 0) continue;
      if (own_only && (e & kEntryFile) != 0) continue;
      const uint64_t address = start + i * kPageBytes;
      append(out, {address, address + kPageBytes, false, guard});
    }
    start += got * kPageBytes;
  }
}

}  // namespace virt
