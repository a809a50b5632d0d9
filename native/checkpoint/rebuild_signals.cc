// Signals and timers of a process that is rebuilt: actions, alternate stacks, what was pending, interval and POSIX timers.
#include <linux/prctl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/error.h"
#include "checkpoint/rebuild_process.h"

#ifndef PR_TIMER_CREATE_RESTORE_IDS
#define PR_TIMER_CREATE_RESTORE_IDS 77
#endif

namespace virt {
namespace {

constexpr int64_t kSecond = 1'000'000'000;

struct KernelAction {
  uint64_t handler, flags, restorer, mask;
};

}  // namespace

void ProcessRebuilder::set_signals(GrownProcess& p) {
  const Value& r = *p.record;
  // Whatever arrived while the tree was grown (SIGCHLD of helpers) is discarded by ignoring it once.
  KernelAction actions[kLastSignal + 1] = {};
  for (const Value& a : r.at("signalActions").as_list()) {
    KernelAction& k = actions[a.at("signal").as_int(1, kLastSignal)];
    k = {a.at("handler").as_hex(), a.at("flags").as_hex(), a.at("restorer").as_hex(), a.at("mask").as_hex()};
  }
  Batch b(p.agent->site());
  const KernelAction ignore{1, 0, 0, 0};
  const RemoteAddress ignored = b.in(&ignore, sizeof ignore);
  for (int s = 1; s <= kLastSignal; ++s) {
    if (s == SIGKILL || s == SIGSTOP) continue;
    b.call(SYS_rt_sigaction, s, ignored, 0, 8);
    b.call(SYS_rt_sigaction, s, b.in(&actions[s], sizeof actions[s]), 0, 8);
  }
  const auto& itimers = r.at("itimers").as_list();
  for (size_t which = 0; which < itimers.size() && which < 3; ++which) {
    const int64_t value = itimers[which].at("valueUs").as_int(0, INT64_MAX),
                  interval = itimers[which].at("intervalUs").as_int(0, INT64_MAX);
    if (value == 0 && interval == 0) continue;
    itimerval t{};
    // ITIMER_REAL stands still while its signal waits, and shows no time left: it is set for its next period,
    // or it would never come again.
    const int64_t next = value != 0 ? value : interval;
    t.it_value = {next / 1'000'000, next % 1'000'000};
    t.it_interval = {interval / 1'000'000, interval % 1'000'000};
    b.call(SYS_setitimer, which, b.in(&t, sizeof t), 0);
  }
  p.agent->run(p.borrow(tree_.region()), b);

  // POSIX timers keep their ids: asked for where the kernel lets us (6.15), else made until the number comes.
  const auto& timers = r.at("posixTimers").as_list();
  if (!timers.empty()) {
    Batch ask(p.agent->site());
    const size_t can = ask.call(SYS_prctl, PR_TIMER_CREATE_RESTORE_IDS, 1, 0, 0, 0);
    p.agent->run(p.borrow(tree_.region()), ask);
    const bool choose = ask.result(can) == 0;
    int next = 0;
    for (const Value& t : timers) {
      const auto id = static_cast<int>(t.at("id").as_int(0, INT32_MAX));
      for (;;) {
        Batch m(p.agent->site());
        sigevent event{};
        event.sigev_notify = static_cast<int>(t.at("notify").as_int(0, 7));
        event.sigev_signo = static_cast<int>(t.at("signal").as_int(0, kLastSignal));
        const uint64_t value = t.at("value").as_hex();
        std::memcpy(&event.sigev_value, &value, sizeof value);
        if (const Value* tid = t.find("tid")) event._sigev_un._tid = static_cast<pid_t>(tid->as_int());
        const RemoteAddress at = m.in(&id, sizeof id);
        const size_t made = m.call(SYS_timer_create, t.at("clock").as_int(), m.in(&event, sizeof event), at);
        p.agent->run(p.borrow(tree_.region()), m);
        m.must(made, "timer_create", "making a POSIX timer again");
        const int got = m.object<int>(at);
        if (got == id) break;
        p.agent->call(p.borrow(tree_.region()), SYS_timer_delete, got);
        if (choose || got > id || ++next > 1'000'000) {
          throw OsError("ERR_TIMER_ID", "timer_create", 0,
                        "POSIX timer " + std::to_string(id) + " cannot have its old id")
              .in_process(p.pid);
        }
      }
      Batch s(p.agent->site());
      itimerspec spec{};
      const int64_t value = t.at("valueNs").as_int(0, INT64_MAX),
                    interval = t.at("intervalNs").as_int(0, INT64_MAX);
      spec.it_value = {value / kSecond, value % kSecond};
      spec.it_interval = {interval / kSecond, interval % kSecond};
      s.call(SYS_timer_settime, id, 0, s.in(&spec, sizeof spec), 0);
      p.agent->run(p.borrow(tree_.region()), s);
    }
    if (choose) p.agent->call(p.borrow(tree_.region()), SYS_prctl, PR_TIMER_CREATE_RESTORE_IDS, 0, 0, 0, 0);
  }
  queue_pending(p);
}

void ProcessRebuilder::queue_pending(GrownProcess& p) {
  const auto note = [&p](const Value& list) {
    for (const Value& signal : list.as_list()) {
      int number = 0;
      if (signal.as_bytes().size() >= sizeof number)
        std::memcpy(&number, signal.as_bytes().data(), sizeof number);
      if (number < 1 || number > kLastSignal) throw BadValue("a pending signal that is none");
      p.avoid_marks |= signal_bit(number);
    }
  };
  for (size_t i = 0; i < p.threads.size(); ++i) note(p.thread_record(i).at("pending"));
  note(p.record->at("pending"));
  const auto queue = [&](size_t thread, const Value& list, bool of_process) {
    for (const Value& signal : list.as_list()) {
      const std::string& bytes = signal.as_bytes();
      if (bytes.size() != sizeof(siginfo_t)) throw BadValue("a pending signal of the wrong size");
      siginfo_t info;
      std::memcpy(&info, bytes.data(), sizeof info);
      Batch b(p.agent->site());
      const RemoteAddress at = b.in(&info, sizeof info);
      const size_t queued =
          of_process ? b.call(SYS_rt_sigqueueinfo, p.pid, info.si_signo, at)
                     : b.call(SYS_rt_tgsigqueueinfo, p.pid, p.threads[thread].tid, info.si_signo, at);
      p.agent->run(p.borrow(tree_.region(), thread), b);
      b.must(queued, "rt_sigqueueinfo", "putting back a pending signal");
    }
  };
  for (size_t i = 0; i < p.threads.size(); ++i) queue(i, p.thread_record(i).at("pending"), false);
  queue(0, p.record->at("pending"), true);
}

}  // namespace virt
