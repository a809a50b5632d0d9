#include "checkpoint/read_pages.h"

#include <sys/mman.h>
#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <optional>

#include "base/error.h"
#include "base/fault.h"
#include "base/parallel.h"
#include "trace/memory.h"

namespace virt {
namespace {

constexpr uint64_t kChunkBytes = PageStore::kMostAtOnce * kPageBytes;
constexpr size_t kChunksPerPiece = 64;  // a piece of one job that one thread reads in order

// A stretch of one job, small enough to be shared among threads, large enough that runs stay long.
struct Piece {
  size_t job;
  std::vector<PageRange> ranges;
  JobRuns runs;
};

std::vector<Piece> cut(const std::vector<PageJob>& jobs) {
  std::vector<Piece> pieces;
  for (size_t j = 0; j < jobs.size(); ++j) {
    uint64_t in_piece = ~uint64_t{0};
    for (const PageRange& range : jobs[j].ranges) {
      for (uint64_t at = range.start; at < range.end;) {
        if (in_piece >= kChunksPerPiece * kChunkBytes) {
          pieces.push_back({j, {}, {}});
          in_piece = 0;
        }
        const uint64_t end = std::min(range.end, at + kChunksPerPiece * kChunkBytes - in_piece);
        PageRange part = range;
        part.start = at;
        part.end = end;
        pieces.back().ranges.push_back(part);
        in_piece += end - at;
        at = end;
      }
    }
  }
  return pieces;
}

class Buffer {
 public:
  Buffer() {
    p_ = mmap(nullptr, kChunkBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p_ == MAP_FAILED) throw OsError("mmap", errno, "making a buffer for pages");
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { munmap(p_, kChunkBytes); }
  [[nodiscard]] char* get() const { return static_cast<char*>(p_); }

 private:
  void* p_;
};

void read_piece(const PageJob& job, Piece& piece, PageStore& store, PageStore::Lane& lane,
                const Buffer& buffer, const std::atomic<bool>& stop, std::atomic<uint64_t>& done_bytes) {
  std::optional<RemoteMemory> memory;
  if (job.fd < 0) memory.emplace(job.host_pid);
  for (const PageRange& range : piece.ranges) {
    for (uint64_t at = range.start; at < range.end;) {
      if (stop.load(std::memory_order_relaxed))
        throw OsError("ERR_ABORTED", "read", ECANCELED, "the capture was stopped");
      uint64_t size = std::min(kChunkBytes, range.end - at);
      if (job.live) {
        const size_t got = memory->try_read(at, buffer.get(), size) / kPageBytes * kPageBytes;
        if (got == 0) {
          at += kPageBytes;
          continue;
        }
        size = got;
      } else if (memory) {
        memory->read(at, buffer.get(), size);
      } else {
        // A memfd's last page may be cut off by its size.
        const ssize_t n = pread(job.fd, buffer.get(), size, static_cast<off_t>(at));
        if (n < 0) throw OsError("pread", errno, "reading a memfd");
        std::memset(buffer.get() + n, 0, size - static_cast<size_t>(n));
      }
      store.add(lane, at + job.rebase, buffer.get(), size / kPageBytes, range.huge, &piece.runs,
                range.keep_zeros ? Zeros::keep
                : job.live       ? Zeros::mark
                                 : Zeros::leave_out);
      done_bytes += size;
      at += size;
    }
  }
}

}  // namespace

std::vector<JobRuns> read_pages(const std::vector<PageJob>& jobs, PageStore& store, unsigned threads,
                                const std::atomic<bool>& stop, std::atomic<uint64_t>& done_bytes) {
  fault_point("capture-read-pages");
  std::vector<Piece> pieces = cut(jobs);
  struct Worker {
    std::unique_ptr<Buffer> buffer = std::make_unique<Buffer>();
    PageStore::Lane lane;
  };
  run_parallel(pieces.size(), threads, [&] {
    return [&, worker = Worker()](size_t i) mutable {
      const PageJob& job = jobs[pieces[i].job];
      try {
        read_piece(job, pieces[i], store, worker.lane, *worker.buffer, stop, done_bytes);
      } catch (const OsError& e) {
        // A process that runs may end; what was read of it until then is as good as ever.
        if (!job.live || (e.error() != ESRCH && e.error() != ENOENT) || e.where().pid != job.host_pid) throw;
      }
    };
  });

  std::vector<JobRuns> runs(jobs.size());
  for (Piece& piece : pieces) {
    JobRuns& all = runs[piece.job];
    for (const PageRun& r : piece.runs) {
      if (!all.empty() && all.back().huge == r.huge &&
          all.back().start + all.back().count * kPageBytes == r.start &&
          all.back().index + all.back().count == r.index) {
        all.back().count += r.count;
      } else {
        all.push_back(r);
      }
    }
  }
  return runs;
}

}  // namespace virt
