// The end of a rebuild: every thread in the agent's park, and after the commit home to its own registers.
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include <cstring>

#include "arch/vdso.h"
#include "base/error.h"
#include "base/fault.h"
#include "checkpoint/foothold.h"
#include "checkpoint/rebuild_process.h"
#include "memory/vma.h"
#include "sys/file.h"
#include "sys/proc.h"

namespace virt {
namespace {

user_regs_struct registers_of(const Value& thread) {
  user_regs_struct regs{};
  const std::string& bytes = thread.at("registers").as_bytes();
  if (bytes.size() != sizeof regs) throw BadValue("a register set of the wrong size");
  std::memcpy(&regs, bytes.data(), sizeof regs);
  // What a program may not choose, an image may not either.
  regs.cs = 0x33;
  regs.ss = 0x2b;
  regs.ds = regs.es = regs.fs = regs.gs = 0;
  return regs;
}

bool stop_would_stop(const Value& process, int signal) {
  for (const Value& a : process.at("signalActions").as_list()) {
    if (a.at("signal").as_int() == signal && a.at("handler").as_hex() != 0) return false;
  }
  return (process.at("threads").as_list().at(0).at("signalMask").as_hex() & signal_bit(signal)) == 0;
}

}  // namespace

void ProcessRebuilder::park(GrownProcess& p) {
  for (size_t i = 0; i < p.threads.size(); ++i) {
    const Value& record = p.thread_record(i);
    Thread& t = p.threads[i].thread;
    const user_regs_struct home = registers_of(record);
    AgentHeader header;
    header.commit = tree_.region().commit();
    header.set_home(home, record.at("signalMask").as_hex());
    p.agent->memory().write(p.threads[i].header, &header, sizeof header);
    t.set_xstate(convert_xstate(record.at("xstate").as_bytes(), from_, here_));
    user_regs_struct parked = agent_park_registers(home, tree_.region().site().code, p.threads[i].header);
    t.set_registers(parked);
    t.set_signal_mask(~uint64_t{0});
  }
}

// The last of ours goes by one call from the vDSO's tail, as the first came.
void ProcessRebuilder::remove_region(GrownProcess& p, const Borrowed& leader) {
  const auto vmas = parse_smaps(read_file(proc_path(p.host_pid, "maps")));
  const Vma* vdso = find_vdso(vmas);
  if (vdso == nullptr) return;
  std::string image(vdso->size(), '\0');
  p.agent->memory().read(vdso->start, image.data(), image.size());
  const auto [offset, room] = vdso_tail(image);
  const size_t code_size = (agent_code_size() + 15) / 16 * 16;
  const size_t used = code_size + sizeof(AgentHeader) + 8 + sizeof(AgentCall);
  if (room < used) return;
  std::string code(static_cast<const char*>(agent_code()), agent_code_size());
  code.resize(code_size, '\0');
  leader.thread->poke(vdso->start + offset, code.data(), code.size());
  AgentCall unmap;
  unmap.number = SYS_munmap;
  unmap.args[0] = tree_.region().start;
  unmap.args[1] = tree_.region().size - kParkingBytes;
  run_single_call(leader, vdso->start + offset, vdso->start + offset + code_size, unmap);
  give_back(leader);  // before the code it stands in goes
  leader.thread->poke(vdso->start + offset, image.data() + offset, used);
}

void ProcessRebuilder::let_go(GrownProcess& p) {
  uint64_t avoid_marks = p.avoid_marks;
  for (const Value& a : p.record->at("signalActions").as_list()) {
    if (a.at("handler").as_hex() > 1)
      avoid_marks |= signal_bit(static_cast<int>(a.at("signal").as_int(1, kLastSignal)));
  }
  // From the park, where a thread that is let go finds its way by itself, straight home. The leader goes
  // last: it removes what the others stood in.
  for (size_t i = p.threads.size(); i-- > 0;) {
    Borrowed who;
    who.thread = &p.threads[i].thread;
    who.home = registers_of(p.thread_record(i));
    who.mask = p.thread_record(i).at("signalMask").as_hex();
    who.tgid = p.pid;
    who.tid = p.threads[i].tid;
    who.avoid_marks = avoid_marks;
    if (i == 0) remove_region(p, who);
    give_back(who);
  }
  if (const auto stop = static_cast<int>(p.record->get_int("stopSignal", 0)); stop != 0) {
    // It stops again before its first instruction. By the signal that had stopped it, where that still would.
    const bool same = stop_would_stop(*p.record, stop);
    kill(p.host_pid, same ? stop : SIGSTOP);
  }
  for (GrownThread& t : p.threads) t.thread.detach();
}

}  // namespace virt
