// A pod while it is being rebuilt: processes grown from the seed, all of them held by ptrace with the agent's
// memory in each. If the engine dies before the final word, init kills them; after it they go home by
// themselves.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <vector>

#include "base/value.h"
#include "trace/agent.h"
#include "trace/thread.h"

namespace virt {

// Where the agent lives in every process: one region that is free in all of them.
//   code | commit word | agent data | one header per thread | room to park the vDSO
struct Region {
  uint64_t start = 0, size = 0;
  uint64_t headers = 0, header_count = 0;  // address of the first, one each 256 bytes
  uint64_t parking = 0;                    // kParkingBytes, unmapped

  [[nodiscard]] AgentSite site() const;
  [[nodiscard]] uint64_t commit() const;
  [[nodiscard]] uint64_t end() const { return start + size; }
};
inline constexpr uint64_t kParkingBytes = 256 << 10;

// Chooses a region that no mapping of any process touches. Throws ERR_NO_ROOM if the address space is full.
Region choose_region(const Value& processes);

struct GrownThread {
  Thread thread;
  pid_t tid = 0;
  uint64_t header = 0;  // its own, in the region
};

struct GrownProcess {
  pid_t host_pid = 0, pid = 0;
  std::vector<GrownThread> threads;  // the leader first
  std::unique_ptr<Agent> agent;
  const Value* record = nullptr;  // its part of the image; null for helpers
  uint64_t avoid_marks = 0;       // signals that wait in it: not to be used as the agent's end mark

  // The image's part about its thread `index`.
  [[nodiscard]] const Value& thread_record(size_t index) const {
    return record->at("threads").as_list().at(index);
  }
  [[nodiscard]] Borrowed borrow(const Region& region, size_t thread = 0);
};

// Makes a new process (or thread) appear as ours: adopts what ptrace attached and waits for its first stop.
Thread adopt(pid_t host_tid, const char* doing);

}  // namespace virt
