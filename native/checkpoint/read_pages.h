// The bulk of a capture: pages out of frozen processes into the page store, by several threads at once.
#pragma once

#include <atomic>
#include <functional>
#include <vector>

#include "checkpoint/memory_map.h"
#include "memory/page_store.h"

namespace virt {

// The runs of one job, in ascending order.
using JobRuns = std::vector<PageRun>;

// Reads every job's ranges with `threads` threads. `stop` ends it early (OsError ERR_ABORTED); `done_bytes`
// counts for progress.
std::vector<JobRuns> read_pages(const std::vector<PageJob>& jobs, PageStore& store, unsigned threads,
                                const std::atomic<bool>& stop, std::atomic<uint64_t>& done_bytes);

}  // namespace virt
