// Pre-copy: the pages of a pod that are sent while it runs, and which of them are still what was sent when it is stopped. Each
// process is watched (memory/write_watch.h) from when it was first seen frozen; a page is known at the stop if it has been
// sent and not written since. Everything else is read again; what is the same is not sent again even so, because the store
// knows it by its hash: processes that cannot be watched, shared memory, kernels without the means.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <map>
#include <memory>
#include <vector>

#include "checkpoint/foothold.h"
#include "checkpoint/freeze.h"
#include "memory/page_store.h"
#include "memory/vma.h"
#include "memory/write_watch.h"

namespace virt {

class Precopy {
 public:
  explicit Precopy(std::unique_ptr<PageSink> sink) : store_(std::move(sink)) {}

  // Watches a frozen process that was not watched yet. Where that cannot be, nothing happens.
  void arm(FrozenProcess& process, Foothold& foothold);

  struct Round {
    uint64_t dirty_bytes = 0;  // that were written meanwhile, and have to go again
    size_t watched = 0;        // processes
  };
  // While the pod runs. `stop` ends it early (ERR_ABORTED).
  Round round(unsigned threads, const std::atomic<bool>& stop, std::atomic<uint64_t>& done_bytes);

  // Of a mapping as it is when the process is frozen: whether we have registered it. That may be one of shared memory, too,
  // which took the place of another while a round began.
  [[nodiscard]] bool registered(pid_t host_pid, const Vma& vma) const;
  // Whether its unwritten pages can be known.
  [[nodiscard]] bool watches(pid_t host_pid, const Vma& vma) const;
  // Splits unwritten pages into those that were sent, as runs, and those that must be read.
  void known(pid_t host_pid, const PageRange& unwritten, std::vector<PageRange>* to_read,
             std::vector<PageRun>* known) const;

  [[nodiscard]] PageStore& store() { return store_; }

 private:
  struct Watched {
    explicit Watched(WriteWatch w) : watch(std::move(w)) {}
    WriteWatch watch;
    std::map<uint64_t, PageRun> sent;  // by address
  };
  static void forget(std::map<uint64_t, PageRun>& sent, uint64_t start, uint64_t end);

  PageStore store_;
  std::map<pid_t, Watched> processes_;
};

}  // namespace virt
