#include "checkpoint/grow_tree.h"

#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <cerrno>

#include "base/error.h"
#include "base/fault.h"

namespace virt {
namespace {

pid_t pid_of(const Value& step, const char* key) {
  return static_cast<pid_t>(step.at(key).as_int(0, 1 << 22));
}

}  // namespace

Tree::Tree(Region region, GrownProcess seed) : region_(region) { processes_.emplace(0, std::move(seed)); }

GrownProcess& Tree::at(pid_t pid) {
  const auto found = processes_.find(pid);
  if (found == processes_.end())
    throw BadValue("a step about pid " + std::to_string(pid) + ", which was not made");
  return found->second;
}

void Tree::grow(const Value& steps) {
  for (const Value& step : steps.as_list()) {
    const std::string& op = step.at("op").as_string();
    if (op == "fork") {
      fault_point("grow-fork");
      fork(step);
    } else if (op == "setsid") {
      must(at(pid_of(step, "pid")), "setsid", "making a session again", SYS_setsid);
    } else if (op == "setpgid") {
      must(at(pid_of(step, "pid")), "setpgid", "joining a process group again", SYS_setpgid, 0,
           pid_of(step, "group"));
    } else if (op == "subreaper") {
      must(at(pid_of(step, "pid")), "prctl", "setting a subreaper", SYS_prctl, PR_SET_CHILD_SUBREAPER,
           step.at("on").as_bool() ? 1 : 0, 0, 0, 0);
    } else if (op == "name") {
      GrownProcess& p = at(pid_of(step, "pid"));
      Batch b(p.agent->site());
      b.call(SYS_prctl, PR_SET_NAME, b.in(step.at("comm").as_bytes().substr(0, 15)));
      p.agent->run(p.borrow(region_), b);
    } else if (op == "exit") {
      end(pid_of(step, "pid"), static_cast<int>(step.at("status").as_int(0, 0xffff)));
    } else if (op == "reap") {
      must(at(pid_of(step, "by")), "wait4", "reaping a helper", SYS_wait4, pid_of(step, "pid"), 0, __WALL, 0);
    } else {
      throw BadValue("a step '" + op + "' that is none");
    }
  }
}

void Tree::fork(const Value& step) {
  GrownProcess& parent = at(pid_of(step, "by"));
  const pid_t pid = pid_of(step, "pid");
  if (processes_.contains(pid)) throw BadValue("pid " + std::to_string(pid) + " is to be made twice");
  Batch b(parent.agent->site());
  clone_args args{};
  args.flags = step.get_bool("sibling", false) ? CLONE_PARENT : 0;
  args.exit_signal =
      (args.flags & CLONE_PARENT) != 0 ? 0 : static_cast<uint64_t>(step.get_int("exitSignal", SIGCHLD));
  args.set_tid = b.in(&pid, sizeof pid);
  args.set_tid_size = 1;
  const size_t made = b.call(SYS_clone3, b.in(&args, sizeof args), sizeof args);
  parent.agent->run(parent.borrow(region_), b);
  if (b.result(made) == -EEXIST) {
    throw OsError("ERR_PID_TAKEN", "clone3", EEXIST, "making a process with its old pid").in_process(pid);
  }
  b.must(made, "clone3", "making a process");
  if (parent.agent->born().size() != 1) throw Bug("a fork that ptrace did not report");
  GrownProcess child;
  child.host_pid = parent.agent->born()[0];
  child.pid = pid;
  child.threads.push_back({adopt(child.host_pid, "making a process"), pid, region_.headers});
  child.agent = std::make_unique<Agent>(child.host_pid, region_.site());
  processes_.emplace(pid, std::move(child));
}

// Ends a helper, or makes a zombie of what was one: by exit_group(2) or by the signal it had died of.
void Tree::end(pid_t pid, int status) {
  GrownProcess& p = at(pid);
  Thread& t = p.threads[0].thread;
  Batch b(p.agent->site());
  const Borrowed who = p.borrow(region_);
  if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) {
    kill(p.host_pid, SIGKILL);
    while (t.alive()) (void)t.await_stop();
  } else if (WIFSIGNALED(status)) {
    const rlimit64 no_core{0, 0};
    prlimit64(p.host_pid, RLIMIT_CORE, &no_core, nullptr);
    // Unblocked and with its default action, the signal ends it on the way out of kill(2).
    kill(p.host_pid, WTERMSIG(status));
    user_regs_struct regs = who.home;
    regs.orig_rax = ~0ULL;
    t.set_registers(regs);
    t.set_signal_mask(0);
    for (;;) {
      t.resume();
      const auto stop = t.await_stop();
      if (!stop) break;
      if (stop->kind == StopKind::signal && stop->signal == WTERMSIG(status)) {
        t.resume(stop->signal);
        while (t.alive()) (void)t.await_stop();
        break;
      }
    }
  } else {
    b.call(SYS_exit_group, WEXITSTATUS(status));
    try {
      p.agent->run(who, b);
    } catch (const OsError& e) {
      if (e.code() != "ERR_PROCESS_GONE") throw;
    }
    while (t.alive()) (void)t.await_stop();
  }
  processes_.erase(pid);
}

void Tree::end_seed() { end(0, 0); }

}  // namespace virt
