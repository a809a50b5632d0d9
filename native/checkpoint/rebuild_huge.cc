#include "checkpoint/rebuild_huge.h"

#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include <algorithm>
#include <cerrno>

#include "base/error.h"
#include "memory/scan.h"

namespace virt {
namespace {

// Debian 12's headers are older than UFFDIO_MOVE (ioctl_userfaultfd(2)).
struct MoveRequest {
  uint64_t to, from, bytes, mode;
  int64_t moved;
};
constexpr unsigned long kMove = _IOWR(UFFDIO, 0x05, MoveRequest);
constexpr uint64_t kAllowHoles = 2;  // UFFDIO_MOVE_MODE_ALLOW_SRC_HOLES
constexpr int kMostMovesWithoutProgress = 1000;

uint64_t block_of(uint64_t address) { return address / kHugeBytes * kHugeBytes; }

// Joins what goes on from the last run.
void append(std::vector<PageRun>* runs, const PageRun& r) {
  if (!runs->empty()) {
    PageRun& last = runs->back();
    if (last.start + last.count * kPageBytes == r.start && last.index + last.count == r.index) {
      last.count += r.count;
      return;
    }
  }
  runs->push_back(r);
}

// Calls f(block, piece) for every run, cut at the borders of blocks.
template <typename F>
void each_piece(const std::vector<PageRun>& runs, F f) {
  for (PageRun r : runs) {
    while (r.count > 0) {
      PageRun piece = r;
      piece.count = std::min(r.count, (block_of(r.start) + kHugeBytes - r.start) / kPageBytes);
      f(block_of(r.start), piece);
      r.start += piece.count * kPageBytes;
      r.index += piece.count;
      r.count -= piece.count;
    }
  }
}

}  // namespace

PartedRuns part_runs(const std::vector<PageRun>& runs, uint64_t start, uint64_t end) {
  struct Block {
    uint64_t start, pages;
    bool huge;
  };
  std::vector<Block> blocks;
  each_piece(runs, [&](uint64_t at, const PageRun& piece) {
    if (blocks.empty() || blocks.back().start != at) blocks.push_back({at, 0, false});
    blocks.back().pages += piece.count;
    blocks.back().huge = blocks.back().huge || piece.huge;
  });
  PartedRuns parted;
  auto block = blocks.begin();
  each_piece(runs, [&](uint64_t at, const PageRun& piece) {
    if (block->start != at) ++block;
    const bool whole = at >= start && at + kHugeBytes <= end;
    const bool huge = whole && (block->huge || block->pages == kHugeBytes / kPageBytes);
    append(huge ? &parted.huge : &parted.small, piece);
  });
  return parted;
}

HugeStage::HugeStage(const std::vector<PageRun>& runs) {
  each_piece(runs, [&](uint64_t block, const PageRun& piece) {
    const bool known =
        !stretches_.empty() && stretches_.back().to + stretches_.back().bytes == block + kHugeBytes;
    if (!known) {
      if (!stretches_.empty() && stretches_.back().to + stretches_.back().bytes == block) {
        stretches_.back().bytes += kHugeBytes;
      } else {
        stretches_.push_back({block, kHugeBytes, size_});
      }
      size_ += kHugeBytes;
    }
    const Stretch& s = stretches_.back();
    PageRun placed = piece;
    placed.start = piece.start - s.to + s.at;
    append(&runs_, placed);
  });
}

bool HugeStage::make(Tree& tree, GrownProcess& process) {
  mapped_ = size_ + kHugeBytes;  // what is aligned lies within
  Batch b(process.agent->site());
  const size_t made = b.call(SYS_mmap, 0, mapped_, PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  b.or_stop();
  b.call(SYS_madvise, 0, mapped_, MADV_HUGEPAGE);
  b.from(1, made);
  process.agent->run(process.borrow(tree.region()), b);
  if (b.result(made) < 0) return false;
  start_ = static_cast<uint64_t>(b.result(made));
  return true;
}

std::vector<PageRun> HugeStage::placed() const {
  const uint64_t base = block_of(start_ + kHugeBytes - 1);
  std::vector<PageRun> runs = runs_;
  for (PageRun& r : runs) r.start += base;
  return runs;
}

void HugeStage::move(Tree& tree, GrownProcess& process, int userfaultfd) {
  const uint64_t base = block_of(start_ + kHugeBytes - 1);
  int without_progress = 0;
  for (const Stretch& s : stretches_) {
    for (uint64_t done = 0; done < s.bytes;) {
      Batch b(process.agent->site());
      const MoveRequest request{s.to + done, base + s.at + done, s.bytes - done, kAllowHoles, 0};
      const RemoteAddress at = b.in(&request, sizeof request);
      const size_t moved = b.call(SYS_ioctl, userfaultfd, kMove, at);
      process.agent->run(process.borrow(tree.region()), b);
      if (b.result(moved) == 0) break;
      // EAGAIN: a page was busy (the kernel was moving it itself, say); what was moved until then is said.
      const auto bytes = b.object<MoveRequest>(at).moved;
      if (b.result(moved) != -EAGAIN || ++without_progress > kMostMovesWithoutProgress)
        throw OsError("ioctl", static_cast<int>(-b.result(moved)),
                      "moving huge pages into place (UFFDIO_MOVE)")
            .in_process(process.pid);
      if (bytes > 0) {
        done += static_cast<uint64_t>(bytes);
        without_progress = 0;
      }
    }
  }
  Batch b(process.agent->site());
  b.call(SYS_munmap, start_, mapped_);
  process.agent->run(process.borrow(tree.region()), b);
}

}  // namespace virt
