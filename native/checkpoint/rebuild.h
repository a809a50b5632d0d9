// A pod made again from an image, in the order of DESIGN's rebuild: the seed, shared handles, the tree, then
// each process, all held; and at the caller's word all let go together, or none. Lives on the engine's
// thread.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "checkpoint/grow_tree.h"
#include "checkpoint/rebuild_memory.h"
#include "checkpoint/rebuild_process.h"
#include "memory/page_store.h"
#include "resources/rebuild_context.h"

namespace virt {

struct RebuildOptions {
  pid_t init_host_pid = 0;
  UniqueFd terminal_master;  // init's, in our table; invalid if the pod has no terminal
  int image_directory = -1;
  std::map<int64_t, UniqueFd> held;  // handles of the image that are there already, by id
  unsigned threads = 2;
  // Asks init to grow the seed in the region, with this pid in the pod.
  std::function<void(uint64_t region, uint64_t size, pid_t pid)> grow_seed;
};

class Rebuild {
 public:
  // `plan` must outlive this: records refer to it.
  Rebuild(RebuildOptions options, const Value& plan);
  ~Rebuild();

  // Everything up to the final word. `stop` ends it early; `phase` tells how far it is.
  void build(const std::atomic<bool>& stop, std::atomic<uint64_t>& done_bytes,
             std::atomic<uint64_t>& total_bytes, const std::function<void(const char*)>& phase);
  // Right before the commit: connections that wait for it, with all they had in their queues.
  std::vector<RebuildContext::Silent>& fill_silent();
  // init has committed: let all processes go.
  void let_go();
  [[nodiscard]] const std::vector<std::string>& notes() const;

 private:
  GrownProcess take_seed(const Region& region, pid_t pid);
  void make_handles();
  void make_late_handles();
  int make_handle(int64_t id);
  [[nodiscard]] bool names_a_process(const Value& record) const;
  void forget_stop(GrownProcess& parent, const GrownProcess& child);

  RebuildOptions options_;
  const Value& plan_;
  std::unique_ptr<PageFile> pages_;
  std::unique_ptr<Tree> tree_;
  std::unique_ptr<RebuildContext> context_;
  std::unique_ptr<MemoryRebuilder> memory_;
  std::unique_ptr<ProcessRebuilder> processes_;
  std::map<int64_t, const Value*> records_;  // of handles, by id
  std::vector<GrownProcess*> live_;          // with a record, zombies aside
};

}  // namespace virt
