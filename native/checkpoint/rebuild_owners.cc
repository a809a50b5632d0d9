// Who gets the signals of a handle (F_SETOWN, O_ASYNC, SIGURG), and what came while a held socket had nobody to tell.
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>

#include "base/error.h"
#include "checkpoint/rebuild_process.h"
#include "sys/fd.h"

namespace virt {

// By a process that has the handle: the signal's si_fd is the number under which O_ASYNC was set.
void ProcessRebuilder::set_async(int64_t handle, int flags) {
  for (auto& [number, p] : tree_.processes()) {
    if (p.record == nullptr || p.agent == nullptr) continue;
    for (const Value& entry : p.record->at("fds").as_list()) {
      if (entry.as_list().at(1).as_int() != handle) continue;
      p.agent->call(p.borrow(tree_.region()), SYS_fcntl, entry.as_list()[0].as_int(), F_SETFL,
                    flags | O_ASYNC);
      return;
    }
  }
}

void ProcessRebuilder::set_owners() {
  for (const Value& record : plan_.at("handles").as_list()) {
    const Value* owner = record.find("owner");
    const auto handle = context_.handle_fds.find(record.at("id").as_int());
    if (owner == nullptr || handle == context_.handle_fds.end()) continue;
    const auto pid = static_cast<pid_t>(owner->at("pid").as_int());
    const UniqueFd fd = context_.take(handle->second);
    f_owner_ex ex{};
    ex.type = static_cast<__pid_type>(owner->at("type").as_int(0, 2));
    for (auto& [number, p] : tree_.processes()) {
      if (number == 0) continue;
      if (ex.type == F_OWNER_PGRP
              ? p.record != nullptr && p.record->get_int("group", 0) == pid && number == pid
              : number == pid)
        ex.pid = p.host_pid;
      for (const GrownThread& t : p.threads) {
        if (ex.type == F_OWNER_TID && t.tid == pid) ex.pid = t.thread.host_tid();
      }
    }
    // None was set, or it is gone: so it stays.
    if (ex.pid != 0) check(fcntl(fd.get(), F_SETOWN_EX, &ex), "fcntl", "setting a handle's owner");
    if (const Value* signal = owner->find("signal"))
      fcntl(fd.get(), F_SETSIG, static_cast<int>(signal->as_int(0, kLastSignal)));
    if ((record.at("flags").as_int() & O_ASYNC) != 0)
      set_async(record.at("id").as_int(), fcntl(fd.get(), F_GETFL));
  }
}

// The kernel told nobody while its program was away, and what it told since was discarded with all else that came while the
// tree was grown (set_signals). So everybody is told once: a signal too many makes a program look in vain, one too few makes
// it wait for ever.
void ProcessRebuilder::tell_owners(const std::map<int64_t, UniqueFd>& held) {
  for (const Value& record : plan_.at("handles").as_list()) {
    const Value* owner = record.find("owner");
    const auto found = held.find(record.at("id").as_int());
    if (owner == nullptr || found == held.end()) continue;
    pollfd now{found->second.get(), POLLIN | POLLOUT | POLLPRI, 0};
    if (poll(&now, 1, 0) <= 0) continue;
    if ((now.revents & POLLPRI) != 0) tell_owner(record, SIGURG, SI_KERNEL, POLLPRI);
    if ((record.at("flags").as_int() & O_ASYNC) == 0) continue;
    const Value* chosen = owner->find("signal");
    const int code = (now.revents & (POLLIN | POLLHUP | POLLERR)) != 0 ? POLL_IN : POLL_OUT;
    chosen == nullptr
        ? tell_owner(record, SIGIO, SI_KERNEL, now.revents)
        : tell_owner(record, static_cast<int>(chosen->as_int(1, kLastSignal)), code, now.revents);
  }
}

void ProcessRebuilder::tell_owner(const Value& record, int signal, int code, int16_t events) {
  const Value& owner = record.at("owner");
  const int64_t type = owner.at("type").as_int(0, 2), pid = owner.at("pid").as_int();
  siginfo_t info{};
  info.si_signo = signal;
  info.si_code = code;
  info.si_band = events;
  info.si_fd = fd_of(record.at("id").as_int());
  const auto tell = [&](GrownProcess& p, size_t thread) {
    p.avoid_marks |= signal_bit(signal);
    Batch b(p.agent->site());
    const RemoteAddress at = b.in(&info, sizeof info);
    const size_t told = type == F_OWNER_TID
                            ? b.call(SYS_rt_tgsigqueueinfo, p.pid, p.threads[thread].tid, signal, at)
                            : b.call(SYS_rt_sigqueueinfo, p.pid, signal, at);
    p.agent->run(p.borrow(tree_.region(), thread), b);
    b.must(told, "rt_sigqueueinfo", "telling the owner of a socket what came");
  };
  for (auto& [number, p] : tree_.processes()) {
    if (p.record == nullptr || p.agent == nullptr) continue;
    if (type == F_OWNER_PID && number == pid) tell(p, 0);
    if (type == F_OWNER_PGRP && p.record->get_int("group", 0) == pid) tell(p, 0);
    for (size_t i = 0; type == F_OWNER_TID && i < p.threads.size(); ++i) {
      if (p.threads[i].tid == pid) tell(p, i);
    }
  }
}

// The number under which the first process that has it knows a handle. -1 if none does.
int ProcessRebuilder::fd_of(int64_t handle) {
  for (auto& [number, p] : tree_.processes()) {
    if (p.record == nullptr) continue;
    for (const Value& entry : p.record->at("fds").as_list()) {
      if (entry.as_list().at(1).as_int() == handle) return static_cast<int>(entry.as_list()[0].as_int());
    }
  }
  return -1;
}

}  // namespace virt
