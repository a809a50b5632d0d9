// The pages of an image, put where they belong by several threads: userfaultfd(2), process_vm_writev(2), or over
// protections as a debugger does.
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/uio.h>

#include <algorithm>
#include <cerrno>

#include "base/error.h"
#include "base/fault.h"
#include "base/parallel.h"
#include "checkpoint/rebuild_memory.h"
#include "sys/file.h"
#include "trace/memory.h"

namespace virt {
namespace {

constexpr size_t kChunkPages = 256;  // 1 MiB: large enough to be fast, small enough to stay in the cache

}  // namespace

void MemoryRebuilder::fill_one(const Fill& f, char* buffer) {
  const Target& target = targets_[f.target];
  for (uint64_t done = 0; done < f.run.count;) {
    const size_t pages = std::min<uint64_t>(kChunkPages, f.run.count - done);
    const uint64_t at = f.run.start + done * kPageBytes;
    const size_t size = pages * kPageBytes;
    pages_.read(f.run.index + done, pages, buffer);
    switch (f.how) {
      case Fill::How::copy: {
        uint64_t copied = 0;
        while (copied < size) {
          uffdio_copy c{};
          c.dst = at + copied;
          c.src = reinterpret_cast<uint64_t>(buffer) + copied;
          c.len = size - copied;
          if (ioctl(target.uffd.get(), UFFDIO_COPY, &c) == 0) break;
          if (errno != EAGAIN || c.copy <= 0)
            throw OsError("ioctl", errno, "putting pages in place (UFFDIO_COPY)");
          copied += static_cast<uint64_t>(c.copy);
        }
        break;
      }
      case Fill::How::write_vm: {
        iovec local{buffer, size};
        iovec remote{reinterpret_cast<void*>(at),
                     size};  // NOLINT(performance-no-int-to-ptr): never followed here
        if (process_vm_writev(target.process->host_pid, &local, 1, &remote, 1, 0) !=
            static_cast<ssize_t>(size)) {
          throw OsError("process_vm_writev", errno, "putting pages in place");
        }
        break;
      }
      case Fill::How::write:
        RemoteMemory(target.process->host_pid).write(at, buffer, size);
        break;
      case Fill::How::file:
        write_exactly(f.fd, buffer, size, at, "filling shared memory");
        break;
    }
    done += pages;
  }
}

void MemoryRebuilder::fill(unsigned threads, const std::atomic<bool>& stop,
                           std::atomic<uint64_t>& done_bytes) {
  fault_point("rebuild-fill");
  // Long runs are cut, so that the threads share them evenly.
  constexpr uint64_t kMostPages = 64 * kChunkPages;
  std::vector<Fill> pieces;
  for (const Fill& f : fills_) {
    for (uint64_t at = 0; at < f.run.count; at += kMostPages) {
      Fill piece = f;
      piece.run.start += at * kPageBytes;
      piece.run.index += at;
      piece.run.count = std::min(kMostPages, f.run.count - at);
      pieces.push_back(piece);
    }
  }
  fills_.clear();
  // Writing over protections is the tracing thread's right alone on some kernels
  // (CONFIG_PROC_MEM_FORCE_PTRACE).
  const auto forced =
      std::partition(pieces.begin(), pieces.end(), [](const Fill& f) { return f.how != Fill::How::write; });
  {
    std::vector<char> buffer(kChunkPages * kPageBytes);
    for (auto f = forced; f != pieces.end(); ++f) {
      fill_one(*f, buffer.data());
      done_bytes += f->run.count * kPageBytes;
    }
  }
  pieces.erase(forced, pieces.end());
  run_parallel(pieces.size(), threads, [&] {
    return [&, buffer = std::vector<char>(kChunkPages * kPageBytes)](size_t i) mutable {
      if (stop.load()) throw OsError("ERR_ABORTED", "ioctl", ECANCELED, "the rebuild was stopped");
      fill_one(pieces[i], buffer.data());
      done_bytes += pieces[i].run.count * kPageBytes;
    };
  });
  for (Target& t : targets_) {
    if (t.stage) t.stage->move(tree_, *t.process, t.own_uffd);
    // Closing the last descriptor of a userfaultfd lets go of the ranges it watched.
    if (t.stage) close_uffd(t);
    t.uffd.reset();
  }
}

}  // namespace virt
