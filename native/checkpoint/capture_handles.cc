// Which descriptors a pod's processes have, and what each kind says of its own.
#include <fcntl.h>
#include <linux/kcmp.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "base/error.h"
#include "checkpoint/capture.h"
#include "checkpoint/foothold.h"
#include "resources/file_locks.h"
#include "resources/kinds.h"
#include "resources/terminal.h"
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

}  // namespace

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

}  // namespace virt
