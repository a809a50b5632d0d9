// Freezing a pod: every thread of every process below init stopped by ptrace, without a signal being sent.
// The pod goes on when the FrozenPod is destroyed, or when this process dies. Lives on one thread, the
// engine's.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "sys/proc.h"
#include "trace/agent.h"
#include "trace/thread.h"

namespace virt {

struct FrozenThread {
  Thread thread;
  pid_t host_tid = 0, tid = 0;   // tid as the pod sees it
  user_regs_struct registers{};  // as found, with the interruption hidden (arch/restart.h)
  uint64_t mask = 0;
  int stop_signal = 0;  // the job-control signal its process is stopped by, or 0
};

struct FrozenProcess {
  pid_t host_pid = 0, pid = 0;
  bool zombie = false;
  bool closed = false;  // undumpable (prctl(2), PR_SET_DUMPABLE): /proc does not show us what is in it
  ProcStat stat;
  std::vector<FrozenThread> threads;  // the leader first; none for a zombie

  [[nodiscard]] bool readable() const { return !zombie && !closed; }
  [[nodiscard]] std::string dir() const { return "/proc/" + std::to_string(host_pid); }
  // The leader (or another thread), ready to be borrowed by an Agent.
  [[nodiscard]] Borrowed borrow(size_t thread = 0);
};

struct FrozenPod {
  pid_t init_host_pid = 0;
  std::vector<FrozenProcess> processes;  // parents before children

  [[nodiscard]] FrozenProcess* by_host_pid(pid_t host_pid);
};

// Throws ERR_FREEZE_TIMEOUT naming the thread that would not stop (and what it waits in), with everything
// thawed.
FrozenPod freeze(pid_t init_host_pid, int timeout_ms);

// The numbers of /proc/PID/status' NSpid line: the last is the pid in the innermost namespace.
std::vector<int> namespace_pids(const ProcFields& status);

}  // namespace virt
