#include "checkpoint/process_state.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include <cerrno>
#include <csignal>

#include "arch/restart.h"
#include "base/error.h"
#include "interpose/filter.h"
#include "sys/file.h"

namespace virt {
namespace {

Blocker blocker(const FrozenProcess& p, const char* code, std::string reason, std::string hint,
                const char* kind = "process") {
  Blocker b;
  b.code = code;
  b.reason = std::move(reason);
  b.hint = std::move(hint);
  b.pid = p.pid;
  b.kind = kind;
  return b;
}

Value number_list(const std::vector<uint64_t>& numbers) {
  Value l = Value::list();
  for (const uint64_t n : numbers) l.push(static_cast<int64_t>(n));
  return l;
}

void read_credentials(const FrozenProcess& p, const ProcFields& status, CaptureContext& c, Value& record) {
  Value v = Value::map();
  v.set("uid", number_list(status.numbers("Uid"))).set("gid", number_list(status.numbers("Gid")));
  v.set("groups", number_list(status.numbers("Groups")));
  for (const auto& [name, key] : {std::pair{"inheritable", "CapInh"},
                                  {"permitted", "CapPrm"},
                                  {"effective", "CapEff"},
                                  {"bounding", "CapBnd"},
                                  {"ambient", "CapAmb"}}) {
    v.set(name, Value::hex(status.number(key, 16).value_or(0)));
  }
  record.set("credentials", std::move(v));
  // Every thread may have its own; a program that uses that is rare and is named.
  for (const FrozenThread& t : p.threads) {
    const auto other = try_read_status(p.dir() + "/task/" + std::to_string(t.host_tid));
    if (!other) continue;
    for (const char* key : {"Uid", "Gid", "Groups", "CapPrm", "CapEff", "NoNewPrivs", "Seccomp"}) {
      if (other->find(key) != status.find(key)) {
        c.block(blocker(p, "ERR_UNSUPPORTED", "threads with different credentials (" + std::string(key) + ")",
                        "not carried yet"));
        return;
      }
    }
  }
}

void check_namespaces(const FrozenPod& pod, const FrozenProcess& p, CaptureContext& c) {
  for (const char* ns : {"user", "mnt", "pid", "ipc", "uts", "net", "cgroup"}) {
    const auto own = try_read_link(p.dir() + "/ns/" + ns);
    const auto theirs = try_read_link(proc_path(pod.init_host_pid, std::string("ns/") + ns));
    if (own && theirs && *own != *theirs) {
      c.block(blocker(p, "ERR_NAMESPACE", std::string("a process in a ") + ns + " namespace of its own",
                      "sandboxes inside a pod are not carried yet; end it first", "namespace"));
      return;
    }
  }
}

// unshare(2) with CLONE_NEWPID or CLONE_NEWTIME: it is the next child that enters.
void check_namespaces_for_children(const FrozenProcess& p, CaptureContext& c) {
  for (const std::string ns : {"pid", "time"}) {
    const auto own = try_read_link(p.dir() + "/ns/" + ns),
               next = try_read_link(p.dir() + "/ns/" + ns + "_for_children");
    if (!own || (next && *own == *next)) continue;
    c.block(blocker(p, "ERR_NAMESPACE", "a process with another " + ns + " namespace for its children",
                    "sandboxes inside a pod are not carried yet; end it first", "namespace"));
    return;
  }
}

void check_seccomp(const FrozenProcess& p, const ProcFields& status, CaptureContext& c) {
  if (has_own_filter(status)) {
    c.block(blocker(p, "ERR_UNSUPPORTED", "a program that has installed a seccomp filter",
                    "not carried yet; turn its sandbox off", "seccomp"));
  }
}

void read_limits(const FrozenProcess& p, Value& record) {
  const auto limits = try_read_limits(p.dir());
  if (!limits) throw OsError("ERR_PROCESS_GONE", "open", ESRCH, "reading limits").in_process(p.pid);
  Value list = Value::list();
  for (const auto& limit : *limits) {
    Value pair = Value::list();
    for (const uint64_t n : {limit.first, limit.second})
      pair.push(n == RLIM64_INFINITY ? Value("unlimited") : Value(std::to_string(n)));
    list.push(std::move(pair));
  }
  record.set("limits", std::move(list));
}

void read_scheduling(const FrozenThread& t, Value& record) {
  errno = 0;
  const int nice = getpriority(PRIO_PROCESS, static_cast<id_t>(t.host_tid));
  if (errno == 0 && nice != 0) record.set("nice", nice);
  const int policy = sched_getscheduler(t.host_tid);
  if (policy > 0) {
    sched_param param{};
    sched_getparam(t.host_tid, &param);
    record.set("policy", policy).set("priority", param.sched_priority);
  }
  cpu_set_t cpus;
  CPU_ZERO(&cpus);
  if (sched_getaffinity(t.host_tid, sizeof cpus, &cpus) == 0) {
    Value list = Value::list();
    for (int i = 0; i < CPU_SETSIZE; ++i) {
      if (CPU_ISSET(i, &cpus)) list.push(i);
    }
    record.set("affinity", std::move(list));
  }
  const long ioprio = syscall(SYS_ioprio_get, 1, t.host_tid);
  if (ioprio > 0) record.set("ioprio", static_cast<int64_t>(ioprio));
}

Value pending(const Thread& thread, bool of_process) {
  Value list = Value::list();
  for (const RawSiginfo& info : thread.pending_signals(of_process))
    list.push(Value::bytes(&info, sizeof info));
  return list;
}

// A thread inside a restartable sequence would be sent to its abort handler by the kernel; a thread made anew
// has no kernel that remembers (rseq(2)).
void leave_rseq(const RemoteMemory& memory, const Thread::RseqConfiguration& rseq, user_regs_struct& regs) {
  struct Area {
    uint32_t cpu_id_start, cpu_id;
    uint64_t critical_section;
  } area{};
  struct Section {
    uint32_t version, flags;
    uint64_t start, length, abort;
  } section{};
  if (rseq.size < sizeof area || memory.try_read(rseq.address, &area, sizeof area) != sizeof area) return;
  if (area.critical_section == 0) return;
  if (memory.try_read(area.critical_section, &section, sizeof section) != sizeof section) return;
  if (regs.rip - section.start < section.length) regs.rip = section.abort;
}

Value thread_record(const FrozenProcess& p, const FrozenThread& t, const RemoteMemory& memory) {
  Value v = Value::map();
  v.set("tid", t.tid);
  if (const auto comm = try_read_file(p.dir() + "/task/" + std::to_string(t.host_tid) + "/comm", 64)) {
    v.set("comm", Value::bytes(comm->data(), comm->empty() ? 0 : comm->size() - 1));
  }
  user_regs_struct regs = without_restart_block(t.registers);
  if (const auto rseq = t.thread.rseq()) {
    Value r = Value::map();
    r.set("address", static_cast<int64_t>(rseq->address)).set("size", static_cast<int64_t>(rseq->size));
    r.set("signature", static_cast<int64_t>(rseq->signature));
    v.set("rseq", std::move(r));
    leave_rseq(memory, *rseq, regs);
  }
  v.set("registers", Value::bytes(&regs, sizeof regs));
  const std::string xstate = t.thread.xstate();
  v.set("xstate", Value::bytes(xstate.data(), xstate.size()));
  v.set("signalMask", Value::hex(t.mask));
  v.set("pending", pending(t.thread, false));
  uint64_t head = 0;
  size_t length = 0;
  if (syscall(SYS_get_robust_list, t.host_tid, &head, &length) == 0 && head != 0) {
    v.set("robustList", static_cast<int64_t>(head)).set("robustListSize", static_cast<int64_t>(length));
  }
  read_scheduling(t, v);
  return v;
}

void read_paths(const FrozenProcess& p, CaptureContext& c, Value& record) {
  for (const auto& [name, link] : {std::pair{"cwd", "cwd"}, {"root", "root"}}) {
    const std::string path = read_link(p.dir() + "/" + link);
    if (shown_deleted(path) || !path.starts_with("/")) {
      c.block(blocker(p, "ERR_FILE_REPLACED",
                      std::string("a ") + name + " directory that was removed (" + path + ")",
                      "let the program change to another directory", name));
    }
    record.set(name, path);
  }
  const std::string exe = read_link(p.dir() + "/exe");
  UniqueFd fd(open((p.dir() + "/exe").c_str(), O_RDONLY | O_CLOEXEC));
  struct stat st {};
  if (!fd || fstat(fd.get(), &st) != 0)
    throw OsError("open", errno, "opening the program's file").in_process(p.pid).at_path(exe);
  record.set("exe", c.file(exe, st, fd.get(), blocker(p, "ERR_FILE_REPLACED", "", "", "exe")));
}

void read_timers_from_proc(const FrozenProcess& p, CaptureContext& c, Value& record) {
  // /proc/PID/timers: "ID: 0", "signal: 14/00007ffd…", "notify: signal/pid.123", "ClockID: 1", once per
  // timer.
  const auto text = try_read_file(p.dir() + "/timers");
  Value list = Value::list();
  if (text && !text->empty()) {
    const ProcFields fields(*text);
    const auto ids = fields.all("ID"), signals = fields.all("signal"), notifies = fields.all("notify"),
               clocks = fields.all("ClockID");
    if (signals.size() != ids.size() || notifies.size() != ids.size() || clocks.size() != ids.size()) {
      throw BadValue("unreadable /proc/PID/timers");
    }
    for (size_t i = 0; i < ids.size(); ++i) {
      const auto id = parse_number(ids[i]), clock = parse_number(clocks[i]);
      const size_t slash = signals[i].find('/'), dot = notifies[i].find('.');
      const auto signal = parse_number(signals[i].substr(0, slash));
      const auto value =
          slash == std::string_view::npos ? std::nullopt : parse_number(signals[i].substr(slash + 1), 16);
      const auto whom =
          dot == std::string_view::npos ? std::nullopt : parse_number(notifies[i].substr(dot + 1));
      if (!id || !clock || !signal || !value || !whom) throw BadValue("unreadable /proc/PID/timers");
      Value timer = Value::map();
      timer.set("id", static_cast<int64_t>(*id)).set("clock", static_cast<int64_t>(*clock));
      timer.set("signal", static_cast<int64_t>(*signal)).set("value", Value::hex(*value));
      const std::string_view how = notifies[i].substr(0, dot);
      int notify = how.starts_with("none")     ? SIGEV_NONE
                   : how.starts_with("thread") ? SIGEV_THREAD
                                               : SIGEV_SIGNAL;
      if (how.ends_with("/tid")) {
        notify = 4;  // SIGEV_THREAD_ID
        timer.set("tid", c.to_pod_pid(static_cast<pid_t>(*whom)));
      }
      timer.set("notify", notify);
      list.push(std::move(timer));
    }
  }
  record.set("posixTimers", std::move(list));
}

}  // namespace

bool has_own_filter(const ProcFields& status) {
  const uint64_t mode = status.number("Seccomp").value_or(0);
  const uint64_t filters = status.number("Seccomp_filters").value_or(mode == 2 ? 1 : 0);
  return mode == 1 || filters > kOwnFilters;
}

Value outside_state(FrozenPod& pod, FrozenProcess& p, CaptureContext& c) {
  const auto status = try_read_status(p.dir());
  if (!status)
    throw OsError("ERR_PROCESS_GONE", "open", ESRCH, "a process was killed meanwhile").in_process(p.pid);
  Value v = Value::map();
  v.set("pid", p.pid);
  FrozenProcess* parent = pod.by_host_pid(p.stat.ppid);
  v.set("ppid", parent != nullptr ? parent->pid : 1);
  const auto last = [&](const char* key) {
    const auto numbers = status->numbers(key);
    return numbers.empty() ? int64_t{0} : static_cast<int64_t>(numbers.back());
  };
  v.set("group", last("NSpgid")).set("session", last("NSsid"));
  v.set("comm", Value::bytes(p.stat.comm.data(), p.stat.comm.size()));
  if (p.stat.exit_signal != SIGCHLD) v.set("exitSignal", p.stat.exit_signal);
  if (p.zombie) {
    v.set("zombie", true).set("exitStatus", p.stat.exit_code);
    if (!p.threads.empty()) {
      c.block(blocker(p, "ERR_UNSUPPORTED", "a process whose main thread has ended while others run",
                      "not carried yet"));
    }
    return v;
  }
  if (p.threads[0].stop_signal != 0) v.set("stopSignal", p.threads[0].stop_signal);
  check_seccomp(p, *status, c);
  if (p.closed) {  // refused; its place in the tree is all there is to say
    Value threads = Value::list();
    for (const FrozenThread& t : p.threads) threads.push(Value::map().set("tid", t.tid));
    v.set("threads", std::move(threads));
    return v;
  }
  check_namespaces(pod, p, c);
  check_namespaces_for_children(p, c);
  read_credentials(p, *status, c, v);
  read_paths(p, c, v);
  read_limits(p, v);
  v.set("umask", static_cast<int64_t>(status->number("Umask", 8).value_or(022)));
  if (status->number("NoNewPrivs").value_or(0) != 0) v.set("noNewPrivs", true);
  const auto persona = try_read_file(p.dir() + "/personality", 64);
  if (persona) {
    const auto n = parse_number(std::string_view(*persona).substr(0, persona->find('\n')), 16);
    if (n && *n != 0) v.set("personality", static_cast<int64_t>(*n));
  }
  if (const auto oom = try_read_file(p.dir() + "/oom_score_adj", 64); oom && *oom != "0\n") {
    v.set("oomScoreAdj",
          static_cast<int64_t>(parse_number(std::string_view(*oom).substr(0, oom->find('\n'))).value_or(0)));
  }
  if (const auto filter = try_read_file(p.dir() + "/coredump_filter", 64); filter && !filter->empty())
    v.set("coreDumpFilter",
          Value::hex(parse_number(std::string_view(*filter).substr(0, filter->find('\n')), 16).value_or(0)));
  // These address fields are what prctl(PR_SET_MM_MAP) wants back.
  Value mm = Value::map();
  const ProcStat& s = p.stat;
  for (const auto& [name, value] : {std::pair{"startCode", s.start_code},
                                    {"endCode", s.end_code},
                                    {"startData", s.start_data},
                                    {"endData", s.end_data},
                                    {"startBrk", s.start_brk},
                                    {"startStack", s.start_stack},
                                    {"argStart", s.arg_start},
                                    {"argEnd", s.arg_end},
                                    {"envStart", s.env_start},
                                    {"envEnd", s.env_end}}) {
    mm.set(name, static_cast<int64_t>(value));
  }
  const std::string auxv = read_file(p.dir() + "/auxv", 4096);
  mm.set("auxv", Value::bytes(auxv.data(), auxv.size()));
  v.set("mm", std::move(mm));
  read_timers_from_proc(p, c, v);
  v.set("pending", pending(p.threads[0].thread, true));
  const RemoteMemory memory(p.host_pid);
  Value threads = Value::list();
  for (const FrozenThread& t : p.threads) threads.push(thread_record(p, t, memory));
  v.set("threads", std::move(threads));
  return v;
}

}  // namespace virt
