// A Foothold is the agent installed in a frozen process that is being captured, for as long as it is needed.
// Its code lies in the unused tail of the process's vDSO, its data in one mapping made for it; both are put
// back as they were when it ends.
//
// If this process dies meanwhile the mapping stays behind: the next foothold in the process recognises it by
// its size and its first bytes (is_leftover) and removes it.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "checkpoint/freeze.h"
#include "memory/vma.h"
#include "trace/agent.h"

namespace virt {

// The agent's code in the tail of a frozen process's vDSO, where nothing is executed by the program, and room for a
// single call without memory of its own. The tail is put back when it ends.
class VdsoCell {
 public:
  // Throws ERR_NO_VDSO if the process has none (it unmapped it), or no room in it.
  VdsoCell(FrozenProcess& process, const std::vector<Vma>& vmas);
  ~VdsoCell();
  VdsoCell(VdsoCell&& other) noexcept;
  VdsoCell& operator=(VdsoCell&&) = delete;

  [[nodiscard]] FrozenProcess& process() const { return process_; }
  [[nodiscard]] RemoteAddress code() const { return tail_; }
  // A thread of the process, with the signals that must not be the end mark filled in.
  [[nodiscard]] Borrowed borrow(size_t thread);
  // One call by the leader; its result, or a negative errno.
  template <typename... Args>
  int64_t call(long number, Args... args) {
    AgentCall c;
    c.number = static_cast<uint32_t>(number);
    size_t i = 0;
    ((c.args[i++] = static_cast<uint64_t>(args)), ...);
    return call(c);
  }
  // Sends the leader home and puts the vDSO back. Idempotent; the destructor does it too, but swallows what goes wrong.
  void remove();

 private:
  int64_t call(const AgentCall& call);

  FrozenProcess& process_;
  uint64_t avoid_marks_ = 0;
  RemoteAddress tail_ = 0;
  std::string saved_;
};

class Foothold {
 public:
  // Throws ERR_NO_VDSO if the process has none (it unmapped it), OsError if it cannot map memory.
  Foothold(FrozenProcess& process, const std::vector<Vma>& vmas);
  ~Foothold();
  Foothold(const Foothold&) = delete;
  Foothold& operator=(const Foothold&) = delete;

  [[nodiscard]] Agent& agent() { return *agent_; }
  [[nodiscard]] Borrowed borrow(size_t thread) { return cell_.borrow(thread); }
  // Removes the mapping, puts the vDSO and the leader's registers back. Idempotent; the destructor does it
  // too, but swallows what goes wrong.
  void remove();

 private:
  explicit Foothold(VdsoCell cell) : cell_(std::move(cell)) {}
  void remove_leftovers(const std::vector<Vma>& vmas);

  VdsoCell cell_;
  RemoteAddress data_ = 0;
  std::optional<Agent> agent_;
};

// The vDSO of a process: its mapping, or nothing.
const Vma* find_vdso(const std::vector<Vma>& vmas);

// A mapping a Foothold left behind when its supervisor was killed.
bool is_leftover(const Vma& vma, const RemoteMemory& memory);

}  // namespace virt
