// Memory of the processes of a pod that is being rebuilt: mappings made where they were, pages put in by
// several threads of ours at once, the vDSO moved or patched.
#pragma once

#include <atomic>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "checkpoint/grow_tree.h"
#include "checkpoint/rebuild_huge.h"
#include "memory/page_store.h"
#include "resources/rebuild_context.h"

namespace virt {

class MemoryRebuilder {
 public:
  MemoryRebuilder(const Value& plan, Tree& tree, RebuildContext& context, const PageFile& pages);

  // In the seed, before the tree grows: shared objects (memfd, shared anonymous memory, SysV segments) made
  // and filled, and every file that is mapped opened once.
  void make_shared();
  // Empties the seed: everything but the region, the vDSO and its data goes.
  static void strip(Tree& tree);
  // Makes the mappings of one process; its pages are only noted.
  void map(GrownProcess& process);
  // Puts all noted pages in place.
  void fill(unsigned threads, const std::atomic<bool>& stop, std::atomic<uint64_t>& done_bytes);
  // What comes after the pages: final protection, locked memory.
  void finish(GrownProcess& process);
  // Seals of memfds, when no mapping is to come any more.
  void seal();
  [[nodiscard]] uint64_t total_bytes() const { return total_bytes_; }

 private:
  struct Target {
    GrownProcess* process = nullptr;
    UniqueFd uffd;       // of the process; invalid where the kernel has none for us
    int own_uffd = -1;   // the same in the process, which alone may move pages with it
    bool moves = false;  // the kernel can
    std::optional<HugeStage> stage;
  };
  struct Fill {
    size_t target;
    PageRun run;
    enum class How { copy, write, write_vm, file } how;
    int fd = -1;  // How::file: a memory object's descriptor, the run's start is an offset
  };

  void place_vdso(GrownProcess& process);
  void make_memory(const Value& object);
  void make_sysv(const Value& object);
  void attach_sysv(GrownProcess& process, const Value& mapping);
  void take_uffd(Target& target);
  void close_uffd(Target& target);
  void fill_one(const Fill& fill, char* buffer);

  const Value& plan_;
  Tree& tree_;
  RebuildContext& context_;
  const PageFile& pages_;
  std::vector<Target> targets_;
  std::vector<Fill> fills_;
  std::vector<UniqueFd> object_fds_;
  std::map<pid_t, std::vector<const Value*>>
      opened_;  // mappings that may be written only until their pages are there
  uint64_t total_bytes_ = 0;
};

}  // namespace virt
