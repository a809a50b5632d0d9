#include "checkpoint/process_inside.h"

#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>

#include <cerrno>
#include <csignal>

#include "base/error.h"
#include "base/scope_exit.h"

#ifndef PR_SET_MDWE
#define PR_SET_MDWE 65
#define PR_GET_MDWE 66
#endif

namespace virt {

void inside_state(FrozenProcess& p, Foothold& foothold, Value& record) {
  struct KernelAction {
    uint64_t handler, flags, restorer, mask;
  };
  Agent& agent = foothold.agent();
  Batch b(agent.site());
  RemoteAddress actions[kLastSignal + 1] = {};
  for (int s = 1; s <= kLastSignal; ++s) {
    if (s == SIGKILL || s == SIGSTOP) continue;
    actions[s] = b.out(sizeof(KernelAction));
    b.call(SYS_rt_sigaction, s, 0, actions[s], 8);
  }
  const size_t brk = b.call(SYS_brk, 0);
  RemoteAddress itimers[3];
  for (int which = 0; which < 3; ++which) {
    itimers[which] = b.out(sizeof(itimerval));
    b.call(SYS_getitimer, which, itimers[which]);
  }
  const RemoteAddress death = b.out(4), subreaper = b.out(4);
  b.call(SYS_prctl, PR_GET_PDEATHSIG, death);
  b.call(SYS_prctl, PR_GET_CHILD_SUBREAPER, subreaper);
  const size_t dumpable = b.call(SYS_prctl, PR_GET_DUMPABLE);
  const size_t no_thp = b.call(SYS_prctl, PR_GET_THP_DISABLE, 0, 0, 0, 0);
  const size_t deny_write_execute = b.call(SYS_prctl, PR_GET_MDWE, 0, 0, 0, 0);
  const size_t keep_caps = b.call(SYS_prctl, PR_GET_KEEPCAPS);
  const size_t secure_bits = b.call(SYS_prctl, PR_GET_SECUREBITS);
  agent.run(foothold.borrow(0), b);

  Value list = Value::list();
  for (int s = 1; s <= kLastSignal; ++s) {
    if (actions[s] == 0) continue;
    const auto a = b.object<KernelAction>(actions[s]);
    if (a.handler == 0 && a.flags == 0 && a.mask == 0) continue;  // SIG_DFL, as everything starts
    Value v = Value::map();
    v.set("signal", s).set("handler", Value::hex(a.handler)).set("flags", Value::hex(a.flags));
    v.set("restorer", Value::hex(a.restorer)).set("mask", Value::hex(a.mask));
    list.push(std::move(v));
  }
  record.set("signalActions", std::move(list));
  Value mm = record.at("mm");
  mm.set("brk", b.result(brk));
  record.set("mm", std::move(mm));
  Value timers = Value::list();
  for (int which = 0; which < 3; ++which) {
    const auto t = b.object<itimerval>(itimers[which]);
    Value v = Value::map();
    v.set("valueUs", int64_t{t.it_value.tv_sec} * 1'000'000 + t.it_value.tv_usec);
    v.set("intervalUs", int64_t{t.it_interval.tv_sec} * 1'000'000 + t.it_interval.tv_usec);
    timers.push(std::move(v));
  }
  record.set("itimers", std::move(timers));
  if (const int s = b.object<int>(death); s != 0) record.set("deathSignal", s);
  if (b.object<int>(subreaper) != 0) record.set("subreaper", true);
  record.set("dumpable", b.result(dumpable));
  if (b.result(no_thp) > 0) record.set("noHugePages", true);
  if (b.result(deny_write_execute) > 0) record.set("denyWriteExecute", b.result(deny_write_execute));
  if (b.result(keep_caps) > 0) record.set("keepCaps", true);
  if (b.result(secure_bits) > 0) record.set("secureBits", b.result(secure_bits));

  // POSIX timers: what /proc does not tell.
  Value posix = record.at("posixTimers");
  for (Value& timer : posix.as_list()) {
    Batch t(agent.site());
    const RemoteAddress at = t.out(sizeof(itimerspec));
    const size_t got = t.call(SYS_timer_gettime, timer.at("id").as_int(), at);
    agent.run(foothold.borrow(0), t);
    t.must(got, "timer_gettime", "reading a POSIX timer");
    const auto spec = t.object<itimerspec>(at);
    timer.set("valueNs", int64_t{spec.it_value.tv_sec} * 1'000'000'000 + spec.it_value.tv_nsec);
    timer.set("intervalNs", int64_t{spec.it_interval.tv_sec} * 1'000'000'000 + spec.it_interval.tv_nsec);
  }
  record.set("posixTimers", std::move(posix));

  // Per thread.
  Value threads = record.at("threads");
  for (size_t i = 0; i < p.threads.size(); ++i) {
    Batch t(agent.site());
    const RemoteAddress stack = t.out(sizeof(stack_t)), address = t.out(8);
    const size_t got_stack = t.call(SYS_sigaltstack, 0, stack);
    const size_t got_address = t.call(SYS_prctl, PR_GET_TID_ADDRESS, address);
    const size_t slack = t.call(SYS_prctl, PR_GET_TIMERSLACK);
    const Borrowed who = foothold.borrow(i);
    agent.run(who, t);
    give_back(who);
    t.must(got_stack, "sigaltstack", "reading the alternate signal stack");
    const auto s = t.object<stack_t>(stack);
    Value& v = threads.as_list()[i];
    Value alt = Value::map();
    // SS_ONSTACK is a fact about now, not a setting; SS_AUTODISARM is one.
    alt.set("address", static_cast<int64_t>(reinterpret_cast<uint64_t>(s.ss_sp)))
        .set("size", static_cast<int64_t>(s.ss_size));
    alt.set("flags", static_cast<int64_t>(static_cast<unsigned>(s.ss_flags)));
    v.set("altStack", std::move(alt));
    if (t.result(slack) > 0) v.set("timerSlackNs", t.result(slack));
    if (t.result(got_address) == 0) v.set("tidAddress", static_cast<int64_t>(t.object<uint64_t>(address)));
  }
  record.set("threads", std::move(threads));
}

void ask_about_stops(const FrozenProcess& parent, Foothold& foothold, const FrozenPod& pod,
                     std::vector<Value>& records) {
  for (size_t i = 0; i < pod.processes.size(); ++i) {
    const FrozenProcess& child = pod.processes[i];
    if (child.zombie || child.stat.ppid != parent.host_pid || child.threads[0].stop_signal == 0) continue;
    Agent& agent = foothold.agent();
    Batch b(agent.site());
    const RemoteAddress info = b.out(sizeof(siginfo_t));
    b.call(SYS_waitid, P_PID, child.pid, info, WSTOPPED | WNOHANG | WNOWAIT | __WALL, 0);
    agent.run(foothold.borrow(0), b);
    if (b.object<siginfo_t>(info).si_pid != child.pid) records[i].set("stopTold", true);
  }
}

void step_out_of_vdso(FrozenProcess& p, const Vma& vdso) {
  constexpr int kMostSteps = 20000;  // its longest function is a few hundred instructions, with a retry loop
  for (FrozenThread& t : p.threads) {
    int steps = 0;
    if (t.registers.rip < vdso.start || t.registers.rip >= vdso.end) continue;
    // A signal must wait until it is out; not the step's own, which the kernel would force upon it.
    t.thread.set_signal_mask(~(uint64_t{1} << (SIGTRAP - 1)));
    const ScopeExit unblock([&] {
      if (t.thread.alive()) t.thread.set_signal_mask(t.mask);
    });
    while (t.registers.rip >= vdso.start && t.registers.rip < vdso.end) {
      if (++steps > kMostSteps) {
        throw OsError("ERR_VDSO_BUSY", "ptrace", 0, "a thread would not leave the vDSO").in_process(p.pid);
      }
      t.thread.step();
      const auto stop = t.thread.await_stop();
      if (!stop)
        throw OsError("ERR_PROCESS_GONE", "ptrace", ESRCH, "a process was killed meanwhile")
            .in_process(p.pid);
      t.registers = t.thread.registers();
    }
  }
}

}  // namespace virt
