// Memory that fills whole huge pages comes back in huge pages. It is put into a stage, memory beside the program's own
// that asks for them (MADV_HUGEPAGE, madvise(2)), and moved from there by the process itself without copying
// (UFFDIO_MOVE, Linux 6.8). The program's mappings keep the advice they had: there is none that takes an advice back.
#pragma once

#include <cstdint>
#include <vector>

#include "checkpoint/grow_tree.h"
#include "memory/page_store.h"

namespace virt {

inline constexpr uint64_t kHugeBytes = 2 << 20;

// What lies in [start, end), parted: blocks of kHugeBytes that are full, or were a huge page; and all else. Both ascend.
struct PartedRuns {
  std::vector<PageRun> huge, small;
};
PartedRuns part_runs(const std::vector<PageRun>& runs, uint64_t start, uint64_t end);

class HugeStage {
 public:
  // `runs` are those of whole blocks (part_runs), ascending.
  explicit HugeStage(const std::vector<PageRun>& runs);
  // Makes the stage in the process. False if there is no room for it, which is no failure.
  bool make(Tree& tree, GrownProcess& process);
  // The runs at their addresses on the stage.
  [[nodiscard]] std::vector<PageRun> placed() const;
  // Makes the process move all of it to where it belongs, by its own userfaultfd, and removes the stage.
  void move(Tree& tree, GrownProcess& process, int userfaultfd);

 private:
  struct Stretch {
    uint64_t to, bytes, at;  // at: offset on the stage
  };
  std::vector<PageRun> runs_;
  std::vector<Stretch> stretches_;
  uint64_t size_ = 0, mapped_ = 0, start_ = 0;
};

}  // namespace virt
