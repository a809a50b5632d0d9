#include "trace/agent.h"

#include <sys/syscall.h>

#include <cerrno>
#include <cstring>

#include "base/error.h"

namespace virt {
namespace {

AgentHeader header_for(const Borrowed& who, int mark) {
  AgentHeader h;
  h.tgid = static_cast<uint64_t>(who.tgid);
  h.tid = static_cast<uint64_t>(who.tid);
  h.mark = static_cast<uint64_t>(mark);
  h.commit = who.commit;
  h.set_home(who.home, who.mask);
  return h;
}

std::vector<siginfo_t> waiting(const Thread& t, int signal, bool of_process) {
  std::vector<siginfo_t> found;
  for (const siginfo_t& info : t.pending_signals(of_process)) {
    if (info.si_signo == signal) found.push_back(info);
  }
  return found;
}

// Queues a signal again as it was, for the thread or its process. Only the kernel may say who sent a signal:
// we send one of ours, and where it is about to be delivered put the old one in its place and block it
// (ptrace(2), the kernel then queues what it was told).
void queue_again(Thread& t, const siginfo_t& info, bool of_process) {
  const int signal = info.si_signo;
  syscall(of_process ? SYS_kill : SYS_tkill, t.host_tid(), signal);
  t.resume();
  bool queued = false;
  for (auto stop = t.await_stop(); stop; stop = t.await_stop()) {
    const bool ours = stop->kind == StopKind::signal && stop->signal == signal && !queued;
    if (queued && stop->kind == StopKind::interrupted) return;
    if (ours) {
      t.set_signal_info(info);
      t.set_signal_mask(~uint64_t{0});
      t.interrupt();  // before its next instruction
      queued = true;
    }
    t.resume(ours ? signal : 0);
  }
  throw OsError("ERR_PROCESS_GONE", "ptrace", ESRCH, "a process was killed meanwhile");
}

// Runs until the mark arrives, which is where the thread is and not who sent the signal: Go sends its own
// threads SIGURG all the time, and one that waited when the thread was stopped comes before our first
// instruction. A genuine signal of the mark's number is not ours to swallow: it is put back afterwards;
// everything else is blocked.
void run_to_mark(const Borrowed& who, const user_regs_struct& regs, int mark, std::vector<pid_t>* born) {
  Thread& t = *who.thread;
  // In this order: if we die in between, the thread has its own mask, and the agent's way home.
  t.set_registers(regs);
  t.set_signal_mask(~signal_bit(mark));
  const uint64_t home = regs.rip + agent_home_offset();
  std::vector<siginfo_t> of_thread = waiting(t, mark, false);
  const std::vector<siginfo_t> of_process = waiting(t, mark, true);
  size_t known = of_thread.size() + of_process.size();
  for (;;) {
    t.resume();
    const auto stop = t.await_stop();
    if (!stop) {
      throw OsError("ERR_PROCESS_GONE", "ptrace", ESRCH, "a process was killed meanwhile")
          .in_process(who.tgid);
    }
    if (stop->kind == StopKind::signal && stop->signal == mark) {
      const bool sent = t.registers().rip == home;
      const siginfo_t info = t.signal_info();
      // One that was pending when we sent ours took its place: signals of this kind do not queue.
      const bool genuine = !sent || info.si_code != SI_TKILL || info.si_pid != who.tgid;
      if (genuine && known == 0) of_thread = {info};
      if (genuine && known > 0) --known;
      if (sent) {
        t.withdraw_signal();  // behind the mask it would wait for ever
        break;
      }
      continue;
    }
    if (stop->kind == StopKind::signal) {
      throw OsError("ERR_AGENT", "ptrace", EFAULT,
                    "a borrowed thread got signal " + std::to_string(stop->signal) + " in our code")
          .in_process(who.tgid);
    }
    if (stop->kind == StopKind::event && born != nullptr)
      born->push_back(static_cast<pid_t>(t.event_message()));
    // A group stop or a trap from an interrupt that was under way: go on.
  }
  // They wait behind the mask until the thread is home. One for the process may still be where it was.
  for (const siginfo_t& info : of_thread) queue_again(t, info, false);
  if (!of_process.empty() && waiting(t, mark, true).empty()) queue_again(t, of_process[0], true);
}

}  // namespace

size_t Batch::add(const AgentCall& call) {
  if (calls_.size() >= kAgentMostCalls) throw Bug("Batch: too many calls");
  calls_.push_back(call);
  return calls_.size() - 1;
}

Batch& Batch::from(unsigned which, size_t source) {
  calls_.back().substitute = static_cast<uint8_t>(which);
  calls_.back().source = static_cast<uint16_t>(source);
  return *this;
}

Batch& Batch::or_stop() {
  calls_.back().flags |= kAgentStopOnError;
  return *this;
}

RemoteAddress Batch::scratch_base() const {
  return site_.data + kAgentHeaderBytes + kAgentMostCalls * sizeof(AgentCall);
}

RemoteAddress Batch::out(size_t size) {
  const size_t at = (scratch_.size() + 15) / 16 * 16;
  if (at + size > kAgentScratchBytes) throw Bug("Batch: out of scratch memory");
  scratch_.resize(at + size, '\0');
  return scratch_base() + at;
}

RemoteAddress Batch::in(const void* data, size_t size) {
  const RemoteAddress address = out(size);
  if (size > 0) std::memcpy(scratch_.data() + (address - scratch_base()), data, size);
  return address;
}

bool Batch::full(size_t scratch) const {
  return calls_.size() + 8 > kAgentMostCalls || scratch_.size() + scratch + 64 > kAgentScratchBytes;
}

int64_t Batch::must(size_t index, const char* call, const char* doing) const {
  const int64_t r = result(index);
  if (r < 0 && r > -4096) throw OsError(call, static_cast<int>(-r), doing);
  return r;
}

void Batch::read(RemoteAddress from, void* to, size_t size) const {
  const uint64_t at = from - scratch_base();
  if (at > scratch_.size() || size > scratch_.size() - at) throw Bug("Batch: read outside scratch memory");
  std::memcpy(to, scratch_.data() + at, size);
}

int choose_mark(uint64_t avoid) {
  for (const int signal : {SIGURG, SIGWINCH, SIGCHLD}) {
    if ((avoid & signal_bit(signal)) == 0) return signal;
  }
  return SIGURG;
}

void Agent::run(const Borrowed& who, Batch& batch) {
  born_.clear();
  if (batch.calls_.empty()) return;
  const int mark = choose_mark(who.avoid_marks);
  const AgentHeader header = header_for(who, mark);
  for (AgentCall& c : batch.calls_) c.result = -ECANCELED;

  const RemoteAddress table = site_.data + kAgentHeaderBytes;
  memory_.write(site_.data, &header, sizeof header);
  memory_.write(table, batch.calls_.data(), batch.calls_.size() * sizeof(AgentCall));
  if (!batch.scratch_.empty())
    memory_.write(batch.scratch_base(), batch.scratch_.data(), batch.scratch_.size());

  run_to_mark(who, agent_run_registers(who.home, site_.code, site_.data, table, batch.calls_.size()), mark,
              &born_);

  memory_.read(table, batch.calls_.data(), batch.calls_.size() * sizeof(AgentCall));
  if (!batch.scratch_.empty())
    memory_.read(batch.scratch_base(), batch.scratch_.data(), batch.scratch_.size());
}

int64_t run_single_call(const Borrowed& who, RemoteAddress code, RemoteAddress cell, AgentCall call) {
  const int mark = choose_mark(who.avoid_marks);
  struct {
    AgentHeader header;
    uint64_t pad;
    AgentCall call;
  } image{};
  static_assert(sizeof image % 8 == 0);
  image.header = header_for(who, mark);
  image.call = call;
  image.call.flags |= kAgentNoStore;
  who.thread->poke(cell, &image, sizeof image);
  const RemoteAddress calls = cell + offsetof(decltype(image), call);
  run_to_mark(who, agent_run_registers(who.home, code, cell, calls, 1), mark, nullptr);
  return static_cast<int64_t>(who.thread->registers().rbp);
}

void give_back(const Borrowed& who) {
  // In this order: if we die in between, the agent's way home leads there, too.
  who.thread->set_signal_mask(who.mask);
  who.thread->set_registers(who.home);
}

}  // namespace virt
