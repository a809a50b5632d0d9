// Shares numbered pieces of work among threads. The first failure stops the rest and is thrown when all have
// ended.
#pragma once

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace virt {

// `make_worker()` is called once on each thread, also on the caller's, and gives what does piece number i; so
// each thread has buffers of its own. At most one thread a piece.
template <typename MakeWorker>
void run_parallel(size_t pieces, unsigned threads, MakeWorker make_worker) {
  std::atomic<size_t> next = 0;
  std::atomic<bool> failed = false;
  std::mutex lock;
  std::exception_ptr first_failure;
  const auto work = [&] {
    try {
      auto worker = make_worker();
      for (;;) {
        const size_t i = next++;
        if (i >= pieces || failed.load()) return;
        worker(i);
      }
    } catch (...) {
      const std::lock_guard guard(lock);
      if (!first_failure) first_failure = std::current_exception();
      failed = true;
    }
  };
  {
    std::vector<std::jthread> helpers;
    const size_t count = std::clamp<size_t>(pieces, 1, std::max(1U, threads));
    for (size_t i = 1; i < count; ++i) helpers.emplace_back(work);
    work();
  }
  if (first_failure) std::rethrow_exception(first_failure);
}

}  // namespace virt
