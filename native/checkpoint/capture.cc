#include "checkpoint/capture.h"

#include <fcntl.h>
#include <linux/kcmp.h>
#include <sys/prctl.h>
#include <sys/sendfile.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <ctime>
#include <map>

#include "arch/vdso.h"
#include "arch/xstate.h"
#include "base/error.h"
#include "base/fault.h"
#include "checkpoint/foothold.h"
#include "checkpoint/process_inside.h"
#include "checkpoint/process_state.h"
#include "checkpoint/read_pages.h"
#include "resources/file_locks.h"
#include "resources/kinds.h"
#include "resources/terminal.h"
#include "sys/clocks.h"
#include "sys/file.h"

namespace virt {
namespace {

// Nothing if the process has ended: whoever is not root is refused the directory of a zombie (EACCES).
std::optional<std::vector<int>> try_list_fds(const FrozenProcess& p) {
  try {
    return try_list_numbers(p.dir() + "/fd");
  } catch (const OsError& e) {
    const auto stat = e.error() == EACCES ? try_read_stat(p.dir()) : std::nullopt;
    if (stat && stat->state == 'Z') return std::nullopt;
    throw;
  }
}

int compare(pid_t pid1, pid_t pid2, int type, unsigned long i1, unsigned long i2) {
  const long r = syscall(SYS_kcmp, pid1, pid2, type, i1, i2);
  if (r < 0) throw OsError("kcmp", errno, "comparing handles");
  return static_cast<int>(r);
}

int64_t realtime_ns() {
  timespec t{};
  clock_gettime(CLOCK_REALTIME, &t);
  return int64_t{t.tv_sec} * 1'000'000'000 + t.tv_nsec;
}

Value pack_runs(const JobRuns& runs) {
  Value list = Value::list();
  for (const PageRun& r : runs) {
    Value v = Value::list();
    v.push(static_cast<int64_t>(r.start));
    v.push(static_cast<int64_t>(r.count));
    v.push(static_cast<int64_t>(r.index));
    if (r.huge) v.push(1);
    list.push(std::move(v));
  }
  return list;
}

}  // namespace

Capture::Capture(CaptureOptions options) : options_(std::move(options)) {}

Capture::~Capture() {
  veil();
  for (const PageJob& job : memory_.jobs) {
    if (job.fd >= 0) close(job.fd);
  }
}

void Capture::freeze() {
  pod_ = virt::freeze(options_.init_host_pid, options_.freeze_timeout_ms);
  context_ = std::make_unique<CaptureContext>(options_.init_host_pid, options_.streams,
                                              options_.terminal_master, options_.terminal_index);
  context_->drop = options_.drop;
  context_->tcp_policy = options_.tcp;
  // Host pid → pod pid, for processes, threads, groups and sessions (whose leaders may be gone).
  auto pids = std::make_shared<std::map<pid_t, int>>();
  (*pids)[options_.init_host_pid] = 1;
  for (const FrozenProcess& p : pod_.processes) {
    (*pids)[p.host_pid] = p.pid;
    for (const FrozenThread& t : p.threads) (*pids)[t.host_tid] = t.tid;
    const auto status = try_read_status(p.dir());
    if (!status) continue;
    const auto groups = status->numbers("NSpgid"), sessions = status->numbers("NSsid");
    if (groups.size() > 1) (*pids)[static_cast<pid_t>(groups[0])] = static_cast<int>(groups.back());
    if (sessions.size() > 1) (*pids)[static_cast<pid_t>(sessions[0])] = static_cast<int>(sessions.back());
  }
  context_->to_pod_pid = [pids](pid_t host) {
    const auto found = pids->find(host);
    return found == pids->end() ? 0 : found->second;
  };
}

// Every fd of every process; two are one handle when the kernel says so (kcmp(2)), whose order makes finding
// fast.
void Capture::collect_handles() {
  fds_.assign(pod_.processes.size(), {});
  locks_.assign(pod_.processes.size(), {});
  std::vector<size_t> order;  // indexes of handles_, in kcmp's order
  struct Seen {
    size_t process, handle;
    HandleUse use;
    ProcFields info;
  };
  std::vector<Seen> with_locks;
  for (size_t i = 0; i < pod_.processes.size(); ++i) {
    const FrozenProcess& p = pod_.processes[i];
    if (!p.readable()) continue;
    UniqueFd pidfd(static_cast<int>(syscall(SYS_pidfd_open, p.host_pid, 0)));
    if (!pidfd) throw OsError("pidfd_open", errno, "opening a process").in_process(p.pid);
    const auto numbers = try_list_fds(p);
    if (!numbers)
      throw OsError("ERR_PROCESS_GONE", "open", ESRCH, "a process was killed meanwhile").in_process(p.pid);
    for (const int fd : *numbers) {
      const ProcFields info(read_file(p.dir() + "/fdinfo/" + std::to_string(fd)));
      const auto flags = info.number("flags", 8);
      if (!flags) throw BadValue("no flags in fdinfo");
      const HandleUse use{p.pid, fd, (*flags & O_CLOEXEC) != 0};
      const auto place = std::lower_bound(order.begin(), order.end(), 0, [&](size_t h, int) {
        return compare(handles_[h].host_pid, p.host_pid, KCMP_FILE,
                       static_cast<unsigned long>(handles_[h].host_fd), static_cast<unsigned long>(fd)) == 1;
      });
      size_t index;
      if (place != order.end() && compare(handles_[*place].host_pid, p.host_pid, KCMP_FILE,
                                          static_cast<unsigned long>(handles_[*place].host_fd),
                                          static_cast<unsigned long>(fd)) == 0) {
        index = *place;
        handles_[index].uses.push_back(use);
      } else {
        index = handles_.size();
        order.insert(place, index);
        Handle h;
        h.id = static_cast<int>(index);
        h.uses.push_back(use);
        h.host_pid = p.host_pid;
        h.host_fd = fd;
        h.flags = static_cast<int>(*flags) & ~O_CLOEXEC;
        h.position = static_cast<int64_t>(info.number("pos").value_or(0));
        h.info = info;
        h.link = read_link(p.dir() + "/fd/" + std::to_string(fd));
        h.dup.reset(static_cast<int>(syscall(SYS_pidfd_getfd, pidfd.get(), fd, 0)));
        if (!h.dup) {
          const bool full = errno == EMFILE;
          throw OsError(full ? "ERR_TOO_MANY_FILES" : "ERR_SYSCALL", "pidfd_getfd", errno, "taking a handle")
              .in_process(p.pid)
              .on_fd(fd);
        }
        check(fstat(h.dup.get(), &h.st), "fstat", "examining a handle");
        handles_.push_back(std::move(h));
      }
      Value entry = Value::list();
      entry.push(fd);
      entry.push(static_cast<int64_t>(index));
      entry.push(use.close_on_exec);
      fds_[i].push_back(std::move(entry));
      if (info.find("lock")) with_locks.push_back({i, index, use, info});
    }
  }
  for (Handle& h : handles_) h.record = Value::map();
  for (const Seen& s : with_locks) {
    auto locks = capture_locks(handles_[s.handle], s.use, s.info, *context_);
    auto& all = locks_[s.process];
    for (Value& lock : locks) {
      // The same POSIX lock shows on every fd of the file.
      const bool known = std::any_of(all.begin(), all.end(), [&](const Value& k) {
        return k.at("start").as_int() == lock.at("start").as_int() &&
               k.at("length").as_int() == lock.at("length").as_int() &&
               inode_of(handles_[static_cast<size_t>(k.at("handle").as_int())].st) ==
                   inode_of(handles_[s.handle].st);
      });
      lock.set("handle", static_cast<int64_t>(s.handle));
      if (!known) all.push_back(std::move(lock));
    }
  }
}

// The kernel gives the files of an undumpable process in /proc to root, whoever may trace it (proc(5)): the process
// itself lifts that for as long as it is captured.
void Capture::unveil() {
  for (FrozenProcess& p : pod_.processes) {
    if (p.zombie || access((p.dir() + "/fd").c_str(), R_OK | X_OK) == 0 || errno != EACCES) continue;
    const auto status = try_read_status(p.dir());
    if (!status)
      throw OsError("ERR_PROCESS_GONE", "open", ESRCH, "a process was killed meanwhile").in_process(p.pid);
    p.closed = has_own_filter(*status) || !make_dumpable(p);
    if (!p.closed || has_own_filter(*status)) continue;  // that is a blocker of its own
    Blocker b;
    b.code = "ERR_UNSUPPORTED";
    b.reason =
        "a process whose program file may not be read, or that may be dumped by root alone: " + p.stat.comm;
    b.hint = "run the pod as root";
    b.pid = p.pid;
    b.kind = "process";
    context_->block(std::move(b));
  }
}

bool Capture::make_dumpable(FrozenProcess& p) {
  VdsoCell cell(p, parse_smaps(read_file(p.dir() + "/maps", size_t{256} << 20)));
  // 2 (suid_dumpable(5)) cannot be given back by prctl(2).
  if (cell.call(SYS_prctl, PR_GET_DUMPABLE) != 0) return false;
  unveiled_.push_back(&p);
  return cell.call(SYS_prctl, PR_SET_DUMPABLE, 1) == 0;
}

// Before the program goes on.
void Capture::veil() noexcept {
  for (FrozenProcess* p : unveiled_) {
    try {
      VdsoCell(*p, parse_smaps(read_file(p->dir() + "/maps", size_t{256} << 20)))
          .call(SYS_prctl, PR_SET_DUMPABLE, 0);
    } catch (const std::exception&) {
      // It was killed: there is nothing left to hide.
    }
  }
  unveiled_.clear();
}

// A file that was made with O_CLOEXEC by other means than open(2) (TIOCGPTPEER) keeps the flag, and fdinfo
// then says it of all its descriptors: only the process itself is told the truth.
void Capture::ask_close_on_exec(size_t process, Foothold& foothold) {
  for (Value& entry : fds_[process]) {
    auto& parts = entry.as_list();
    const Handle& h = handles_[static_cast<size_t>(parts[1].as_int())];
    const int flags = fcntl(h.dup.get(), F_GETFL);
    if (flags < 0 || (flags & O_CLOEXEC) == 0) continue;
    const int64_t own = foothold.agent().call(foothold.borrow(0), SYS_fcntl, parts[0].as_int(), F_GETFD);
    parts[2] = Value((own & FD_CLOEXEC) != 0);
  }
}

// Processes that share a descriptor table, directory state or memory without being threads (raw clone(2)).
void Capture::check_shared_tables() {
  const auto block = [&](int pid, const char* what) {
    Blocker b;
    b.code = "ERR_UNSUPPORTED";
    b.reason =
        std::string("processes or threads that share (or do not share) their ") + what + " in an unusual way";
    b.hint = "not carried yet; programs made with fork and pthreads do not do this";
    b.pid = pid;
    b.kind = "process";
    context_->block(std::move(b));
  };
  std::vector<const FrozenProcess*> live;
  for (const FrozenProcess& p : pod_.processes) {
    if (!p.readable()) continue;
    for (const FrozenThread& t : p.threads) {
      if (t.host_tid == p.host_pid) continue;
      if (compare(p.host_pid, t.host_tid, KCMP_FILES, 0, 0) != 0) block(p.pid, "descriptors");
      if (compare(p.host_pid, t.host_tid, KCMP_FS, 0, 0) != 0) block(p.pid, "working directory");
    }
    live.push_back(&p);
  }
  for (const auto& [type, what] : {std::pair{KCMP_FILES, "descriptors"},
                                   {KCMP_FS, "working directory"},
                                   {KCMP_VM, "memory"},
                                   {KCMP_SIGHAND, "signal handlers"}}) {
    auto sorted = live;
    std::sort(sorted.begin(), sorted.end(), [type = type](const FrozenProcess* a, const FrozenProcess* b) {
      return a != b && compare(a->host_pid, b->host_pid, type, 0, 0) == 1;
    });
    for (size_t i = 1; i < sorted.size(); ++i) {
      if (compare(sorted[i - 1]->host_pid, sorted[i]->host_pid, type, 0, 0) == 0) block(sorted[i]->pid, what);
    }
  }
}

void Capture::capture_handles() {
  context_->handles = &handles_;
  for (Handle& h : handles_) {
    for (const Kind* kind : kinds()) {
      if (kind->recognise(h, *context_)) {
        h.kind = kind;
        break;
      }
    }
  }
  for (Handle& h : handles_) {
    const size_t lost_before = context_->accepted.size(), blocked_before = context_->blockers.size();
    h.record.set("id", h.id).set("kind", h.kind->name).set("flags", h.flags);
    try {
      h.kind->capture(h, *context_);
    } catch (OsError& e) {
      e.in_process(h.uses[0].pid).on_fd(h.uses[0].fd).of_kind(h.kind->name).at_path(h.link);
      throw;
    }
    const bool dropped = context_->accepted.size() > lost_before &&
                         context_->blockers.size() == blocked_before && options_.drop.contains(h.kind->name);
    if (dropped) {
      Value gone = Value::map();
      gone.set("id", h.id).set("kind", "dropped").set("flags", h.flags).set("was", h.kind->name);
      h.record = std::move(gone);
      continue;
    }
    f_owner_ex owner{};
    const bool owned = fcntl(h.dup.get(), F_GETOWN_EX, &owner) == 0 && owner.pid != 0;
    const int signal = fcntl(h.dup.get(), F_GETSIG);  // it may be chosen before the owner
    if (owned || signal > 0) {
      Value o = Value::map();
      o.set("type", static_cast<int>(owner.type)).set("pid", owned ? context_->to_pod_pid(owner.pid) : 0);
      if (signal > 0) o.set("signal", signal);
      h.record.set("owner", std::move(o));
    }
  }
  if (options_.terminal_master >= 0) {
    terminal_object(options_.terminal_index, options_.terminal_master, true, *context_);
  }
}

Value Capture::clocks() const {
  const auto pod_clock = [this](Clock clock) {
    return std::to_string(host_clock_ns(clock) + clock_offset_ns(options_.init_host_pid, clock));
  };
  Value v = Value::map();
  v.set("monotonicNs", pod_clock(Clock::monotonic)).set("boottimeNs", pod_clock(Clock::boottime));
  v.set("realtimeNs", std::to_string(realtime_ns()));
  return v;
}

Value Capture::survey() {
  Value record = Value::map();
  record.set("clocks", clocks());
  fault_point("survey");
  unveil();
  collect_handles();
  check_shared_tables();

  std::vector<Value> states;
  std::vector<std::vector<Vma>> vmas;
  for (FrozenProcess& p : pod_.processes) {
    states.push_back(outside_state(pod_, p, *context_));
    vmas.emplace_back();
    if (p.readable()) vmas.back() = parse_smaps(read_file(p.dir() + "/smaps", size_t{256} << 20));
  }
  capture_handles();
  for (size_t i = 0; i < pod_.processes.size(); ++i) {
    if (pod_.processes[i].readable()) survey_memory(pod_.processes[i], i, vmas[i], *context_, memory_);
  }
  survey_objects(*context_, memory_);
  survey_sysv();
  // What would be refused anyway is not asked further: nothing of ours has run in the pod yet, but what lifted the veil.
  if (context_->blockers.empty()) {
    for (size_t i = 0; i < pod_.processes.size(); ++i) {
      FrozenProcess& p = pod_.processes[i];
      if (!p.readable()) continue;
      if (const Vma* vdso = find_vdso(vmas[i])) step_out_of_vdso(p, *vdso);
      Foothold foothold(p, vmas[i]);
      inside_state(p, foothold, states[i]);
      if (std::find(unveiled_.begin(), unveiled_.end(), &p) != unveiled_.end()) states[i].set("dumpable", 0);
      ask_about_stops(p, foothold, pod_, states);
      ask_close_on_exec(i, foothold);
      survey_objects_through(p, i, foothold, *context_, memory_);
      foothold.remove();
    }
  }
  memory_.mappings.resize(pod_.processes.size());
  for (size_t i = 0; i < states.size(); ++i) {
    if (!pod_.processes[i].readable()) continue;
    states[i].set("mappings", std::move(memory_.mappings[i]));
    states[i].set("fds", Value(Value::List(fds_[i].begin(), fds_[i].end())));
    if (!locks_[i].empty()) states[i].set("locks", Value(Value::List(locks_[i].begin(), locks_[i].end())));
  }
  record.set("processes", Value(Value::List(states.begin(), states.end())));
  Value handles = Value::list();
  for (const Handle& h : handles_) handles.push(h.record);
  record.set("handles", std::move(handles));
  record.set("objects", context_->objects());
  record.set("files", context_->files());
  Value memory = Value::list();
  for (MemoryObject& m : context_->memories()) {
    Value v = m.record;
    v.set("id", m.id).set("kind", m.kind).set("sizeBytes", static_cast<int64_t>(m.size));
    memory.push(std::move(v));
  }
  record.set("memory", std::move(memory));
  record.set("vdso", Value::bytes(memory_.vdso.data(), memory_.vdso.size()));
  record.set("xstate", XstateLayout::of_this_cpu().to_value());
  Value blockers = Value::list();
  for (const Blocker& b : context_->blockers) blockers.push(b.to_value());
  record.set("blockers", std::move(blockers));
  Value accepted = Value::list();
  for (const std::string& a : context_->accepted) accepted.push(a);
  record.set("accepted", std::move(accepted));
  return record;
}

void Capture::carry_files(int directory, Value& record) {
  Value carried = Value::list();
  for (const CaptureContext::Carried& f : context_->carried()) {
    const std::string name = "carried-" + std::to_string(f.id) + ".bin";
    UniqueFd to(openat(directory, name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600));
    if (!to) throw OsError("openat", errno, "making a file of the image").at_path(name);
    check(ftruncate(to.get(), static_cast<off_t>(f.size)), "ftruncate", "writing a carried file");
    off_t at = 0;
    while (at < static_cast<off_t>(f.size)) {
      const off_t data = lseek(f.fd.get(), at, SEEK_DATA);
      if (data < 0 && errno == ENXIO) break;
      check(data, "lseek", "reading an unlinked file");
      const off_t hole = check(lseek(f.fd.get(), data, SEEK_HOLE), "lseek", "reading an unlinked file");
      check(lseek(to.get(), data, SEEK_SET), "lseek", "writing a carried file");
      at = data;
      while (at < hole) {
        const ssize_t n = sendfile(to.get(), f.fd.get(), &at, static_cast<size_t>(hole - at));
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) throw OsError("sendfile", n < 0 ? errno : EIO, "writing a carried file").at_path(name);
      }
    }
    Value v = Value::map();
    v.set("file", f.id).set("name", name).set("sizeBytes", static_cast<int64_t>(f.size));
    carried.push(std::move(v));
  }
  record.set("carried", std::move(carried));
}

void Capture::read(int directory, Value& record, const std::atomic<bool>& stop,
                   std::atomic<uint64_t>& done_bytes) {
  PageStore store(directory);
  const std::vector<JobRuns> runs = read_pages(memory_.jobs, store, options_.threads, stop, done_bytes);
  // Runs of one process in one list; of a shared object likewise.
  std::vector<JobRuns> of_process(pod_.processes.size()), of_memory(context_->memories().size());
  for (size_t j = 0; j < runs.size(); ++j) {
    auto& all = (memory_.jobs[j].of_memory ? of_memory : of_process)[memory_.jobs[j].owner];
    all.insert(all.end(), runs[j].begin(), runs[j].end());
  }
  Value processes = record.at("processes"), memory = record.at("memory");
  for (size_t i = 0; i < of_process.size(); ++i) {
    if (!pod_.processes[i].zombie) processes.as_list()[i].set("pages", pack_runs(of_process[i]));
  }
  // Several processes may have been read for one object.
  for (JobRuns& all : of_memory) {
    std::sort(all.begin(), all.end(), [](const PageRun& a, const PageRun& b) { return a.start < b.start; });
  }
  for (size_t i = 0; i < of_memory.size(); ++i) memory.as_list()[i].set("pages", pack_runs(of_memory[i]));
  record.set("processes", std::move(processes)).set("memory", std::move(memory));
  carry_files(directory, record);
  std::vector<uint64_t> parts = store.finish();
  Value counts = Value::list();
  for (const uint64_t pages : parts) counts.push(static_cast<int64_t>(pages));
  record.set("pagesInPart", std::move(counts));
  fault_point("capture-read-done");
  for (const auto& look : context_->read_last) look();
  record.set("objects", context_->objects());
}

void Capture::thaw() {
  fault_point("thaw");
  veil();
  pod_ = FrozenPod{};
}

void Capture::reap() {
  unveiled_.clear();
  // The leader last: the kernel reports its end only when the other threads are gone.
  for (FrozenProcess& p : pod_.processes) {
    for (auto t = p.threads.rbegin(); t != p.threads.rend(); ++t) {
      while (t->thread.alive()) (void)t->thread.await_stop();
    }
  }
  pod_ = FrozenPod{};
}

}  // namespace virt
