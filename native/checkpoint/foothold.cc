#include "checkpoint/foothold.h"

#include <sys/mman.h>
#include <sys/syscall.h>

#include <cerrno>
#include <utility>

#include "arch/vdso.h"
#include "base/error.h"
#include "base/fault.h"

namespace virt {
namespace {

// Written behind the header; nobody has it there by chance.
constexpr char kMagic[9] = "virt-ag1";
constexpr size_t kMagicOffset = sizeof(AgentHeader);
static_assert(kMagicOffset + 8 <= kAgentHeaderBytes);

size_t code_bytes() { return (agent_code_size() + 15) / 16 * 16; }
constexpr size_t kCellBytes = sizeof(AgentHeader) + 8 + sizeof(AgentCall);

}  // namespace

const Vma* find_vdso(const std::vector<Vma>& vmas) {
  for (const Vma& v : vmas) {
    if (v.path == "[vdso]") return &v;
  }
  return nullptr;
}

bool is_leftover(const Vma& vma, const RemoteMemory& memory) {
  if (!vma.shared || vma.size() != kAgentDataBytes || !vma.path.starts_with("/dev/zero")) return false;
  char magic[8];
  return memory.try_read(vma.start + kMagicOffset, magic, sizeof magic) == sizeof magic &&
         std::string_view(magic, 8) == std::string_view(kMagic, 8);
}

VdsoCell::VdsoCell(FrozenProcess& process, const std::vector<Vma>& vmas) : process_(process) {
  const Vma* vdso = find_vdso(vmas);
  if (vdso == nullptr) {
    throw OsError("ERR_NO_VDSO", "mmap", 0, "the process has unmapped its vDSO").in_process(process.pid);
  }
  const auto status = try_read_status(process.dir());
  if (!status) throw OsError("ERR_PROCESS_GONE", "open", ESRCH, "a process was killed meanwhile");
  for (const char* key : {"SigCgt", "SigPnd", "ShdPnd"}) avoid_marks_ |= status->number(key, 16).value_or(0);
  std::string image(vdso->size(), '\0');
  RemoteMemory(process.host_pid).read(vdso->start, image.data(), image.size());
  const auto [offset, room] = vdso_tail(image);
  if (room < code_bytes() + kCellBytes) {
    throw OsError("ERR_NO_VDSO", "mmap", 0, "the vDSO of this kernel has no room for the agent")
        .in_process(process.pid);
  }
  saved_ = image.substr(offset, code_bytes() + kCellBytes);
  tail_ = vdso->start + offset;
  std::string code(static_cast<const char*>(agent_code()), agent_code_size());
  code.resize(code_bytes(), '\0');
  // From here on the vDSO is not as it was; what lies there is never executed by the program.
  process.threads[0].thread.poke(tail_, code.data(), code.size());
}

VdsoCell::VdsoCell(VdsoCell&& other) noexcept
    : process_(other.process_),
      avoid_marks_(other.avoid_marks_),
      tail_(std::exchange(other.tail_, 0)),
      saved_(std::move(other.saved_)) {}

Borrowed VdsoCell::borrow(size_t thread) {
  Borrowed b = process_.borrow(thread);
  b.avoid_marks = avoid_marks_;
  return b;
}

int64_t VdsoCell::call(const AgentCall& call) {
  return run_single_call(borrow(0), tail_, tail_ + code_bytes(), call);
}

void VdsoCell::remove() {
  if (tail_ == 0) return;
  const RemoteAddress tail = std::exchange(tail_, 0);
  // The thread may stand in the code that goes now: it goes home first.
  const Borrowed leader = borrow(0);
  give_back(leader);
  leader.thread->poke(tail, saved_.data(), saved_.size());
}

VdsoCell::~VdsoCell() {
  try {
    remove();
  } catch (const std::exception&) {
    // The process was killed, or is in a state we do not know: the first failure is already on its way.
  }
}

// Delegates, so that the destructor puts everything back if something fails half-way.
Foothold::Foothold(FrozenProcess& process, const std::vector<Vma>& vmas) : Foothold(VdsoCell(process, vmas)) {
  // Shared, so that the kernel merges it with no neighbour and is_leftover can tell it.
  const int64_t at =
      cell_.call(SYS_mmap, 0, kAgentDataBytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (at < 0 && at > -4096)
    throw OsError("mmap", static_cast<int>(-at), "mapping memory for the agent")
        .in_process(cell_.process().pid);
  data_ = static_cast<RemoteAddress>(at);
  agent_.emplace(cell_.process().host_pid, AgentSite{cell_.code(), data_});
  agent_->memory().write(data_ + kMagicOffset, kMagic, 8);
  remove_leftovers(vmas);
  fault_point("agent-installed");
}

// No thread uses them any more: whoever was on its way home when the former supervisor died has come out of
// the vDSO.
void Foothold::remove_leftovers(const std::vector<Vma>& vmas) {
  Batch b(agent_->site());
  for (const Vma& v : vmas) {
    if (!is_leftover(v, agent_->memory())) continue;
    b.call(SYS_munmap, v.start, v.size());
    if (b.full()) break;  // hundreds: the next time, then
  }
  agent_->run(borrow(0), b);
}

void Foothold::remove() {
  if (data_ != 0) cell_.call(SYS_munmap, std::exchange(data_, 0), kAgentDataBytes);
  cell_.remove();
}

Foothold::~Foothold() {
  try {
    remove();
  } catch (const std::exception&) {
    // The process was killed, or is in a state we do not know: the first failure is already on its way.
  }
}

}  // namespace virt
