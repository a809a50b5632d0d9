// Which pages of a running process are written: userfaultfd(2), write-protect async, with PAGEMAP_SCAN (kernel 6.7). The kernel
// resolves the faults itself; the process notices nothing but that the first write to a page takes 0.7 µs longer, and that a huge
// page is split. What the kernel writes for it (read(2)) is seen as well; what a device writes (O_DIRECT) is not.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <vector>

#include "memory/scan.h"
#include "sys/fd.h"

namespace virt {

class WriteWatch {
 public:
  // A userfaultfd that was made in the process (it needs not keep it), not yet told what it is for. Throws OsError.
  WriteWatch(pid_t host_pid, UniqueFd userfaultfd);

  // Whether writes to this mapping have been seen since the last watch(): it is still the one that was watched then.
  [[nodiscard]] bool watches(uint64_t start, uint64_t end) const;
  // Whether writes to this mapping are seen from now on; again is harmless. Not so for mappings that another userfaultfd has, and
  // when the process has ended or executed another program.
  [[nodiscard]] bool watch(uint64_t start, uint64_t end) const;
  // The pages in a watched mapping that belong to the process and were written since the last call, or never taken; from now on
  // they count as unwritten. A mapping that is not watched (any more) gives nothing. Empty as well if the memory is gone.
  [[nodiscard]] std::vector<PageRange> take(uint64_t start, uint64_t end) const;
  // How many bytes take() would give now.
  [[nodiscard]] uint64_t written_bytes(uint64_t start, uint64_t end) const;

 private:
  [[nodiscard]] std::vector<PageRange> written(uint64_t start, uint64_t end, uint64_t flags) const;

  UniqueFd userfaultfd_, pagemap_;
};

}  // namespace virt
