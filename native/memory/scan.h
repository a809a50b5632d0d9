// Which pages of a process hold something of its own: PAGEMAP_SCAN (kernel 6.7), or /proc/PID/pagemap read
// entry by entry where that is missing. Reads nothing of the pages themselves.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <vector>

#include "sys/fd.h"

namespace virt {

inline constexpr uint64_t kPageBytes = 4096;

struct PageRange {
  uint64_t start = 0, end = 0;  // addresses
  bool huge = false;            // mapped by a huge page
  bool guard = false;           // a guard region (MADV_GUARD_INSTALL): nothing there can be read
  bool keep_zeros = false;      // a page of zeros counts too: it hides a file's
  bool unwritten = false;       // not written since WriteWatch::take() had it; where that was asked for
  bool absent = false;          // swapped out, or as good as; where that was asked for, too
};

class PageScanner {
 public:
  // `by_ioctl` false: as on a kernel without PAGEMAP_SCAN, for tests.
  explicit PageScanner(pid_t host_pid, bool by_ioctl = true);

  // Pages in [start, end) that are present or swapped out, are no shared zero page, and with `own_only`
  // belong to the process alone (not to a file or shared memory). Ascending, adjacent ones joined. Guard
  // regions are told where the kernel tells them (6.15). The entries of pagemap show neither zero nor huge
  // pages: read from there, zero pages are in it and nothing is huge.
  // `ask_written`: what WriteWatch has seen is told apart (`unwritten`). Where it watches, something absent need not be a
  // page: the kernel leaves a mark in place of a file's page that was dropped (MADV_DONTNEED) while it was unwritten.
  [[nodiscard]] std::vector<PageRange> scan(uint64_t start, uint64_t end, bool own_only,
                                            bool ask_written = false) const;

 private:
  [[nodiscard]] bool scan_by_ioctl(uint64_t start, uint64_t end, bool own_only, bool ask_written,
                                   std::vector<PageRange>* out) const;
  void scan_by_reading(uint64_t start, uint64_t end, bool own_only, std::vector<PageRange>* out) const;

  UniqueFd pagemap_;
  bool by_ioctl_;
  mutable bool asks_for_guards_ = true;  // until the kernel does not know them
};

}  // namespace virt
