#include "checkpoint/freeze.h"

#include <elf.h>
#include <sys/ptrace.h>
#include <sys/wait.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <ctime>
#include <map>
#include <set>
#include <thread>

#include "arch/restart.h"
#include "base/error.h"
#include "base/fault.h"
#include "base/value.h"
#include "sys/file.h"

namespace virt {
namespace {

using Clock = std::chrono::steady_clock;

// How often a thread is let run to leave the vDSO. One that asks for the time without end is there nearly
// always.
constexpr int kMostMoments = 20;

// Every process below init, parents before children. What changes while we look is found by looking again.
std::vector<pid_t> walk_tree(pid_t root) {
  std::vector<pid_t> all, queue{root};
  std::set<pid_t> seen{root};
  while (!queue.empty()) {
    const pid_t pid = queue.back();
    queue.pop_back();
    if (pid != root) all.push_back(pid);
    const auto tids = try_list_numbers(proc_path(pid, "task"));
    if (!tids) continue;
    for (const int tid : *tids) {
      const auto text = try_read_file(proc_path(pid, "task/" + std::to_string(tid) + "/children"), 8 << 20);
      if (!text) continue;
      for (const auto word : split_words(*text)) {
        const auto child = parse_number(word);
        if (child && seen.insert(static_cast<pid_t>(*child)).second)
          queue.push_back(static_cast<pid_t>(*child));
      }
    }
  }
  return all;
}

// Whether an address lies in the vDSO of a process, or not far behind it.
bool near_vdso(pid_t pid, uint64_t address) {
  constexpr uint64_t kMostVdsoBytes = 64 << 10;
  const auto auxv = try_read_file(proc_path(pid, "auxv"), 1 << 16);
  uint64_t pair[2];
  for (size_t at = 0; auxv && at + sizeof pair <= auxv->size(); at += sizeof pair) {
    std::memcpy(pair, auxv->data() + at, sizeof pair);
    if (pair[0] == AT_SYSINFO_EHDR) return address - pair[1] < kMostVdsoBytes;
  }
  return false;
}

std::string what_it_waits_in(pid_t tid) {
  try {
    const auto wchan = try_read_file(proc_path(tid, "wchan"), 4096);
    return wchan && !wchan->empty() && *wchan != "0" ? " (waits in " + *wchan + ")" : "";
  } catch (const OsError&) {
    return "";
  }
}

class Freezer {
 public:
  Freezer(pid_t init, int timeout_ms)
      : init_(init), deadline_(Clock::now() + std::chrono::milliseconds(timeout_ms)) {}

  FrozenPod run() {
    // Only a pass that finds nothing new proves that nothing runs: a running thread may have made others.
    bool changed = true;
    while (changed) {
      changed = false;
      for (const pid_t pid : walk_tree(init_)) changed |= seize_new_threads(pid);
      stop_running();
      if (!changed) changed = let_out_of_vdso();
    }
    fault_point("freeze-stopped");
    return collect();
  }

 private:
  bool seize_new_threads(pid_t pid) {
    const auto tids = try_list_numbers(proc_path(pid, "task"));
    if (!tids) return false;
    // All of them, and fast, before the first is stopped: a signal that the process ignores is queued as soon as
    // one thread has a tracer (ptrace(2)), and ends the waits of those that have none yet.
    std::vector<pid_t> fresh;
    for (const pid_t tid : *tids) {
      if (threads_.contains(tid)) continue;
      auto thread = seize(pid, tid);
      if (!thread) continue;
      threads_.emplace(tid, Entry{pid, *std::move(thread), 0});
      fresh.push_back(tid);
    }
    running_.insert(running_.end(), fresh.begin(), fresh.end());
    return !fresh.empty();
  }

  static std::optional<Thread> seize(pid_t pid, pid_t tid) {
    try {
      return Thread::try_seize(tid, 0);
    } catch (OsError& e) {
      if (e.error() != EPERM) throw;
      // Exiting threads say EPERM too.
      const auto stat = try_read_stat(proc_path(pid, "task/" + std::to_string(tid)));
      if (!stat || stat->state == 'Z' || stat->state == 'X') return std::nullopt;
      const auto status = try_read_status(proc_path(tid, ""));
      const auto tracer = status ? status->number("TracerPid") : std::nullopt;
      if (tracer.value_or(0) != 0) {
        throw OsError("ERR_TRACED", "ptrace", EPERM,
                      "process " + std::to_string(tid) +
                          " (host pid) is traced by its own debugger, host pid " + std::to_string(*tracer) +
                          "; end the debugger first");
      }
      throw OsError("ERR_NOT_PERMITTED", "ptrace", EPERM, "seizing a thread").in_process(tid);
    }
  }

  // One after the other: between its interruption and hide_the_stop() a wait of a thread has failed, and would stay so
  // if we died just then.
  void stop_running() {
    for (const pid_t tid : running_) {
      Entry& e = threads_.at(tid);
      e.thread.interrupt();
      for (;;) {
        const auto left =
            std::chrono::duration_cast<std::chrono::milliseconds>(deadline_ - Clock::now()).count();
        const auto stop = e.thread.await_stop(static_cast<int>(std::max<int64_t>(left, 0)));
        if (!stop && !e.thread.alive()) {
          threads_.erase(tid);  // it ended: a value, not an error
          break;
        }
        if (!stop) {
          throw OsError("ERR_FREEZE_TIMEOUT", "ptrace", ETIMEDOUT,
                        "stopping thread " + std::to_string(tid) + " (host pid)" + what_it_waits_in(tid));
        }
        if (stop->kind == StopKind::signal) {
          // A signal was on its way: the program gets it as ever; our interrupt is still pending. Without a
          // tracer one that it ignores would not even have woken it.
          if (!has_handler(tid, stop->signal)) hide_the_stop(e.thread);
          e.thread.resume(stop->signal);
          continue;
        }
        if (stop->kind == StopKind::group_stopped) e.stop_signal = stop->signal;
        hide_the_stop(e.thread);
        break;
      }
    }
    running_.clear();
  }

  static bool has_handler(pid_t tid, int signal) {
    const auto status = try_read_status(proc_path(tid, ""));
    return status && (status->number("SigCgt", 16).value_or(0) >> (signal - 1) & 1) != 0;
  }

  // At once: if we die later, the program must not find a wait that failed.
  static void hide_the_stop(Thread& thread) {
    const user_regs_struct found = thread.registers(), hidden = hide_interruption(found);
    if (hidden.rax != found.rax) thread.set_registers(hidden);
  }

  // A thread that stands in the vDSO, whose code may be another elsewhere, runs on for a moment: it will be
  // out of there. That a former supervisor's death left on its way home through our code behind it, too.
  bool let_out_of_vdso() {
    for (auto& [tid, e] : threads_) {
      const user_regs_struct regs = e.thread.registers();
      if (in_system_call(regs) || e.moments == kMostMoments || !near_vdso(e.host_pid, regs.rip)) continue;
      ++e.moments;
      e.thread.resume();
      running_.push_back(tid);
    }
    if (running_.empty()) return false;
    const timespec moment{0, 20'000};
    nanosleep(&moment, nullptr);
    stop_running();
    return true;
  }

  FrozenPod collect() {
    FrozenPod pod;
    pod.init_host_pid = init_;
    for (const pid_t pid : walk_tree(init_)) {
      const auto stat = try_read_stat(proc_path(pid, ""));
      const auto status = try_read_status(proc_path(pid, ""));
      if (!stat || !status) continue;
      FrozenProcess p;
      p.host_pid = pid;
      p.pid = namespace_pids(*status).back();
      p.stat = *stat;
      p.zombie = stat->state == 'Z';
      for (auto it = threads_.begin(); it != threads_.end();) {
        if (it->second.host_pid != pid) {
          ++it;
          continue;
        }
        FrozenThread t{.thread = std::move(it->second.thread), .host_tid = it->first};
        t.stop_signal = it->second.stop_signal;
        t.registers = t.thread.registers();
        t.mask = t.thread.signal_mask();
        const auto thread_status = try_read_status(proc_path(pid, "task/" + std::to_string(t.host_tid)));
        if (!thread_status) throw OsError("ERR_PROCESS_GONE", "open", ESRCH, "a thread was killed meanwhile");
        t.tid = namespace_pids(*thread_status).back();
        p.threads.push_back(std::move(t));
        it = threads_.erase(it);
      }
      std::stable_sort(p.threads.begin(), p.threads.end(), [&](const FrozenThread& a, const FrozenThread& b) {
        return (a.host_tid == pid) > (b.host_tid == pid);
      });
      if (!p.zombie && p.threads.empty()) continue;  // it ended between two looks
      pod.processes.push_back(std::move(p));
    }
    return pod;
  }

  struct Entry {
    pid_t host_pid;
    Thread thread;
    int stop_signal;
    int moments = 0;  // given to leave the vDSO
  };
  pid_t init_;
  Clock::time_point deadline_;
  std::map<pid_t, Entry> threads_;
  std::vector<pid_t> running_;
};

}  // namespace

std::vector<int> namespace_pids(const ProcFields& status) {
  std::vector<int> out;
  for (const uint64_t n : status.numbers("NSpid")) out.push_back(static_cast<int>(n));
  if (out.empty()) throw BadValue("no NSpid in /proc/PID/status");
  return out;
}

Borrowed FrozenProcess::borrow(size_t thread) {
  FrozenThread& t = threads.at(thread);
  Borrowed b;
  b.thread = &t.thread;
  b.home = t.registers;
  b.mask = t.mask;
  b.tgid = pid;
  b.tid = t.tid;
  return b;
}

FrozenProcess* FrozenPod::by_host_pid(pid_t host_pid) {
  for (FrozenProcess& p : processes) {
    if (p.host_pid == host_pid) return &p;
  }
  return nullptr;
}

FrozenPod freeze(pid_t init_host_pid, int timeout_ms) {
  // A parent in vfork(2) cannot be stopped before its child has gone on to exec, and the child cannot while
  // we hold it: whoever does not stop soon may be waiting for one we have stopped. So let all go, and try
  // again, with more patience each time (a thread may also just be waiting for a disk).
  const auto end = Clock::now() + std::chrono::milliseconds(timeout_ms);
  for (int patience_ms = 50;; patience_ms *= 2) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(end - Clock::now()).count();
    const bool last = patience_ms >= left;
    try {
      return Freezer(init_host_pid, last ? static_cast<int>(std::max<int64_t>(left, 1)) : patience_ms).run();
    } catch (const OsError& e) {
      if (last || e.code() != "ERR_FREEZE_TIMEOUT") throw;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
}

}  // namespace virt
