#include "checkpoint/rebuild_process.h"

#include <fcntl.h>
#include <linux/prctl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/error.h"
#include "checkpoint/batch_runner.h"
#include "resources/file_locks.h"
#include "sys/file.h"
#include "sys/proc.h"

namespace virt {

ProcessRebuilder::ProcessRebuilder(const Value& plan, Tree& tree, RebuildContext& context)
    : plan_(plan),
      tree_(tree),
      context_(context),
      from_(XstateLayout::from_value(plan.at("xstate"))),
      here_(XstateLayout::of_this_cpu()) {}

void ProcessRebuilder::set_addresses(GrownProcess& p) {
  const Value& mm = p.record->at("mm");
  const auto address = [&](const char* key) {
    return static_cast<uint64_t>(mm.at(key).as_int(0, INT64_MAX));
  };
  Batch b(p.agent->site());
  const std::string& auxv = mm.at("auxv").as_bytes();
  prctl_mm_map map{};
  map.start_code = address("startCode");
  map.end_code = address("endCode");
  map.start_data = address("startData");
  map.end_data = address("endData");
  map.start_brk = address("startBrk");
  map.brk = address("brk");
  map.start_stack = address("startStack");
  map.arg_start = address("argStart");
  map.arg_end = address("argEnd");
  map.env_start = address("envStart");
  map.env_end = address("envEnd");
  map.auxv = reinterpret_cast<__u64*>(b.in(auxv.data(), auxv.size()));  // NOLINT(performance-no-int-to-ptr)
  map.auxv_size = static_cast<uint32_t>(auxv.size());
  map.exe_fd = static_cast<uint32_t>(context_.mapped_file(p.record->at("exe").as_int(), O_RDONLY));
  const size_t set = b.call(SYS_prctl, PR_SET_MM, PR_SET_MM_MAP, b.in(&map, sizeof map), sizeof map, 0);
  p.agent->run(p.borrow(tree_.region()), b);
  try {
    b.must(set, "prctl", "setting the program's addresses and executable");
  } catch (OsError& e) {
    e.in_process(p.pid);
    throw;
  }
}

void ProcessRebuilder::place_handles(GrownProcess& p) {
  std::vector<int> numbers;
  Batch b(p.agent->site());
  std::vector<std::pair<size_t, int>> placed;
  const auto flush = [&] {
    p.agent->run(p.borrow(tree_.region()), b);
    for (const auto& [index, fd] : placed) {
      try {
        b.must(index, "dup3", "placing a handle");
      } catch (OsError& e) {
        e.in_process(p.pid).on_fd(fd);
        throw;
      }
    }
    placed.clear();
    b = Batch(p.agent->site());
  };
  for (const Value& entry : p.record->at("fds").as_list()) {
    const auto& parts = entry.as_list();
    if (parts.size() != 3) throw BadValue("a descriptor that is no triple");
    const auto fd = static_cast<int>(parts[0].as_int(0, INT32_MAX - 1));
    const int64_t handle = parts[1].as_int();
    if (!context_.handle_fds.contains(handle)) continue;  // dropped, as the user agreed
    if (b.full()) flush();
    const int flags = parts[2].as_bool() ? O_CLOEXEC : 0;
    numbers.push_back(fd);
    if (context_.late_handles.contains(handle)) {
      const size_t seed = b.call(SYS_pidfd_open, plan_.at("seedPid").as_int(), 0);
      const size_t got = b.call(SYS_pidfd_getfd, 0, context_.handle_fd(handle), 0);
      b.from(1, seed);
      // Above all numbers that are wanted, so that it is never its own target; what is temporary goes with
      // all else.
      const size_t above = b.call(SYS_fcntl, 0, F_DUPFD_CLOEXEC, context_.first_fd());
      b.from(1, got);
      placed.emplace_back(b.call(SYS_dup3, 0, fd, flags), fd);
      b.from(1, above);
      continue;
    }
    placed.emplace_back(b.call(SYS_dup3, context_.handle_fd(handle), fd, flags), fd);
  }
  // Everything between is the seed's: close it.
  std::sort(numbers.begin(), numbers.end());
  uint32_t from = 0;
  for (const int fd : numbers) {
    if (b.full()) flush();
    if (static_cast<uint32_t>(fd) > from) b.call(SYS_close_range, from, static_cast<uint32_t>(fd) - 1, 0);
    from = static_cast<uint32_t>(fd) + 1;
  }
  b.call(SYS_close_range, from, ~0U, 0);
  flush();
}

void ProcessRebuilder::claim_terminals() {
  for (const auto& [pid, process] : tree_.processes()) claim_terminal(pid);
}

void ProcessRebuilder::claim_terminal(pid_t session) {
  if (session == 0) return;
  for (const Value& object : plan_.at("objects").as_list()) {
    if (object.at("kind").as_string() != "terminal" || object.get_int("session", 0) != session) continue;
    GrownProcess& leader = tree_.at(session);
    Batch b(leader.agent->site());
    const std::string path = "/dev/pts/" + std::to_string(object.at("index").as_int());
    const size_t opened = b.call(SYS_openat, AT_FDCWD, b.in(path), O_RDWR | O_NOCTTY | O_CLOEXEC, 0);
    b.or_stop();
    const size_t claimed = b.call(SYS_ioctl, 0, TIOCSCTTY, 0);
    b.from(1, opened);
    const auto group = static_cast<int>(object.get_int("foreground", 0));
    if (group > 1) {
      b.call(SYS_ioctl, 0, TIOCSPGRP, b.in(&group, sizeof group));
      b.from(1, opened);
    }
    b.call(SYS_close, 0);
    b.from(1, opened);
    leader.agent->run(leader.borrow(tree_.region()), b);
    b.must(opened, "open", "opening a controlling terminal");
    b.must(claimed, "ioctl", "claiming a controlling terminal");
  }
}

void ProcessRebuilder::make_threads(GrownProcess& p) {
  const auto& records = p.record->at("threads").as_list();
  for (size_t i = 0; i < records.size(); ++i) {
    const auto tid = static_cast<pid_t>(records[i].at("tid").as_int(1, 1 << 22));
    const uint64_t header = tree_.region().headers + i * kAgentHeaderBytes;
    if (i == 0) {
      if (tid != p.pid) throw BadValue("the first thread of a process is not its leader");
      p.threads[0].header = header;
      continue;
    }
    Batch b(p.agent->site());
    clone_args args{};
    args.flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM;
    args.set_tid = b.in(&tid, sizeof tid);
    args.set_tid_size = 1;
    const size_t made = b.call(SYS_clone3, b.in(&args, sizeof args), sizeof args);
    p.agent->run(p.borrow(tree_.region()), b);
    b.must(made, "clone3", "making a thread");
    if (p.agent->born().size() != 1) throw Bug("a thread that ptrace did not report");
    p.threads.push_back({adopt(p.agent->born()[0], "making a thread"), tid, header});
  }
}

void ProcessRebuilder::set_attributes(GrownProcess& p) {
  const Value& r = *p.record;
  Batch b(p.agent->site());
  ExpectedCalls checks;
  checks.add(b.call(SYS_chdir, b.in(r.at("cwd").as_string())), "chdir", "entering the working directory");
  if (r.at("root").as_string() != "/") {
    checks.add(b.call(SYS_chroot, b.in(r.at("root").as_string())), "chroot", "changing the root directory");
  }
  b.call(SYS_umask, r.at("umask").as_int(0, 07777));
  if (const Value* persona = r.find("personality")) b.call(SYS_personality, persona->as_int(0, UINT32_MAX));
  if (r.get_bool("subreaper", false)) b.call(SYS_prctl, PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
  if (r.get_bool("noHugePages", false)) b.call(SYS_prctl, PR_SET_THP_DISABLE, 1, 0, 0, 0);
  if (const Value* locks = r.find("locks")) {
    for (const Value& lock : locks->as_list()) {
      struct flock range {};
      range.l_type = lock.at("exclusive").as_bool() ? F_WRLCK : F_RDLCK;
      range.l_whence = SEEK_SET;
      range.l_start = lock.at("start").as_int(0, INT64_MAX);
      range.l_len = lock.at("length").as_int(0, INT64_MAX);
      checks.add(b.call(SYS_fcntl, lock.at("fd").as_int(0, INT32_MAX), F_SETLK, b.in(&range, sizeof range)),
                 "fcntl", "taking a file lock again (another process may hold it now)");
    }
  }
  p.agent->run(p.borrow(tree_.region()), b);
  checks.check(b, p.pid);
  for (size_t i = 0; i < p.threads.size(); ++i) set_thread_state(p, i);
  apply_outside(p);
}

void ProcessRebuilder::set_thread_state(GrownProcess& p, size_t i) {
  const Value& t = p.thread_record(i);
  Batch b(p.agent->site());
  ExpectedCalls checks;
  if (const Value* comm = t.find("comm"))
    b.call(SYS_prctl, PR_SET_NAME, b.in(comm->as_bytes().substr(0, 15)), 0, 0, 0);
  const Value& alt = t.at("altStack");
  stack_t stack{};
  stack.ss_sp =
      reinterpret_cast<void*>(alt.at("address").as_int(0, INT64_MAX));  // NOLINT(performance-no-int-to-ptr)
  stack.ss_size = static_cast<size_t>(alt.at("size").as_int(0, INT64_MAX));
  // Whether it is in use right now shows in the stack pointer, not here.
  stack.ss_flags = static_cast<int>(static_cast<uint32_t>(alt.at("flags").as_int(0, UINT32_MAX)) &
                                    ~static_cast<uint32_t>(SS_ONSTACK));
  checks.add(b.call(SYS_sigaltstack, b.in(&stack, sizeof stack), 0), "sigaltstack",
             "setting an alternate signal stack");
  if (const Value* address = t.find("tidAddress")) b.call(SYS_set_tid_address, address->as_int(0, INT64_MAX));
  if (const Value* head = t.find("robustList")) {
    checks.add(
        b.call(SYS_set_robust_list, head->as_int(0, INT64_MAX), t.at("robustListSize").as_int(0, 4096)),
        "set_robust_list", "setting the robust futex list");
  }
  if (const Value* rseq = t.find("rseq")) {
    checks.add(b.call(SYS_rseq, rseq->at("address").as_int(0, INT64_MAX), rseq->at("size").as_int(0, 4096), 0,
                      rseq->at("signature").as_int(0, UINT32_MAX)),
               "rseq", "registering restartable sequences");
  }
  if (const Value* slack = t.find("timerSlackNs"))
    b.call(SYS_prctl, PR_SET_TIMERSLACK, slack->as_int(0, INT64_MAX), 0, 0, 0);
  p.agent->run(p.borrow(tree_.region(), i), b);
  checks.check(b, p.pid);
}

// What may be set by anybody who may trace the process.
void ProcessRebuilder::apply_outside(GrownProcess& p) {
  const Value& r = *p.record;
  for (size_t i = 0; i < p.threads.size(); ++i) {
    const Value& t = p.thread_record(i);
    const pid_t tid = p.threads[i].thread.host_tid();
    if (const Value* policy = t.find("policy")) {
      sched_param param{};
      param.sched_priority = static_cast<int>(t.get_int("priority", 0));
      if (sched_setscheduler(tid, static_cast<int>(policy->as_int(0, INT32_MAX)), &param) != 0) {
        notes.push_back("pid " + std::to_string(p.pid) +
                        ": its scheduling policy needs a privilege we lack here; it runs with the default");
      }
    }
    if (const Value* nice = t.find("nice");
        nice != nullptr &&
        setpriority(PRIO_PROCESS, static_cast<id_t>(tid), static_cast<int>(nice->as_int(-20, 19))) != 0) {
      notes.push_back("pid " + std::to_string(p.pid) +
                      ": its nice value needs a privilege we lack here; it runs with the default");
    }
    if (const Value* list = t.find("affinity")) {
      cpu_set_t wanted, allowed;
      CPU_ZERO(&wanted);
      CPU_ZERO(&allowed);
      for (const Value& cpu : list->as_list())
        CPU_SET(static_cast<size_t>(cpu.as_int(0, CPU_SETSIZE - 1)), &wanted);
      sched_getaffinity(tid, sizeof allowed, &allowed);
      if (!CPU_EQUAL(&wanted, &allowed) && sched_setaffinity(tid, sizeof wanted, &wanted) != 0) {
        notes.push_back("pid " + std::to_string(p.pid) +
                        ": none of the CPUs it was bound to is here; it may run on all");
      }
    }
    if (const Value* ioprio = t.find("ioprio")) syscall(SYS_ioprio_set, 1, tid, ioprio->as_int(0, 1 << 16));
  }
  if (const Value* filter = r.find("coreDumpFilter")) {
    try {
      write_file(proc_path(p.host_pid, "coredump_filter"), std::to_string(filter->as_hex()));
    } catch (const OsError&) {
      notes.push_back("pid " + std::to_string(p.pid) + ": its coredump_filter cannot be set here");
    }
  }
  if (const Value* oom = r.find("oomScoreAdj")) {
    try {
      write_file(proc_path(p.host_pid, "oom_score_adj"), std::to_string(oom->as_int(-1000, 1000)));
    } catch (const OsError&) {
      notes.push_back("pid " + std::to_string(p.pid) + ": its oom_score_adj needs a privilege we lack here");
    }
  }
}

}  // namespace virt
