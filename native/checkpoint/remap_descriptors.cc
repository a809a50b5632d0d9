// Other descriptors in place of those that frozen processes have (--remap fd:PID/FD=… of a running pod): all are made
// before the first is put in place.
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <set>
#include <tuple>
#include <vector>

#include "base/error.h"
#include "base/scope_exit.h"
#include "checkpoint/capture.h"
#include "checkpoint/foothold.h"
#include "checkpoint/process_inside.h"
#include "checkpoint/process_state.h"
#include "resources/kinds.h"
#include "resources/rebuild_context.h"
#include "sys/file.h"

namespace virt {
namespace {

// One process that is being changed, and where calls are made in its name.
struct Changed {
  std::unique_ptr<Foothold> foothold;
  std::unique_ptr<RebuildContext> context;
};

Changed enter(FrozenProcess& p) {
  const std::vector<Vma> vmas = parse_smaps(read_file(p.dir() + "/smaps", size_t{256} << 20));
  if (const Vma* vdso = find_vdso(vmas)) step_out_of_vdso(p, *vdso);
  Changed c;
  c.foothold = std::make_unique<Foothold>(p, vmas);
  UniqueFd pidfd(static_cast<int>(syscall(SYS_pidfd_open, p.host_pid, 0)));
  if (!pidfd) throw OsError("pidfd_open", errno, "opening a process").in_process(p.pid);
  c.context =
      std::make_unique<RebuildContext>(c.foothold->agent(), c.foothold->borrow(0), std::move(pidfd), 0);
  return c;
}

// epoll_ctl(2) takes no regular file, and no such device as null. Found before anything is changed.
void check_pollable(int fd) {
  const UniqueFd epoll(
      check(epoll_create1(EPOLL_CLOEXEC), "epoll_create1", "trying what takes a descriptor's place"));
  epoll_event event{};
  if (epoll_ctl(epoll.get(), EPOLL_CTL_ADD, fd, &event) != 0)
    throw OsError("ERR_REMAP", "epoll_ctl", errno, "an epoll watches the descriptor, and takes no such file");
}

// Epoll items that were given what is there now: an epoll may be known to several processes, and by several numbers.
using Watched = std::set<std::tuple<int64_t, int64_t, int64_t>>;  // epoll, number, change

// What an epoll watched under this number is watched no more, and what is there now is, for the same.
void put_in_place(RebuildContext& c, int made, const Value& use, int64_t change, Watched* done) {
  const auto fd = static_cast<int>(use.at("fd").as_int(0, INT32_MAX));
  std::vector<const Value*> watched;
  for (const Value& w : use.at("watched").as_list()) {
    if (done->emplace(w.at("handle").as_int(), fd, change).second) watched.push_back(&w);
  }
  Batch b = c.batch();
  for (const Value* w : watched)
    b.call(SYS_epoll_ctl, w->at("epoll").as_int(0, INT32_MAX), EPOLL_CTL_DEL, fd, 0);
  const size_t placed = b.call(SYS_dup3, made, fd, use.get_bool("closeOnExec", false) ? O_CLOEXEC : 0);
  b.call(SYS_close, made);
  std::vector<size_t> added;
  for (const Value* w : watched) {
    epoll_event event{};
    event.events = static_cast<uint32_t>(w->at("events").as_int(0, UINT32_MAX));
    event.data.u64 = w->at("data").as_hex();
    added.push_back(
        b.call(SYS_epoll_ctl, w->at("epoll").as_int(), EPOLL_CTL_ADD, fd, b.in(&event, sizeof event)));
  }
  c.run(b);
  b.must(placed, "dup3", "putting a descriptor in place");
  for (const size_t one : added) b.must(one, "epoll_ctl", "letting an epoll watch a new descriptor");
}

}  // namespace

void Capture::remap_descriptors(const Value& changes) {
  struct Made {
    RebuildContext* context;
    int fd;
    const Value* use;
    int64_t change;
  };
  std::map<int64_t, Changed> processes;  // by pid
  std::vector<Made> made;
  const ScopeExit undo([&made] {
    for (const Made& m : made) {
      try {
        m.context->close(m.fd);
      } catch (const std::exception&) {
        // The process has died.
      }
    }
  });
  const auto frozen = [&](int64_t pid) -> FrozenProcess& {
    const auto p = std::find_if(pod_.processes.begin(), pod_.processes.end(),
                                [pid](const FrozenProcess& candidate) { return candidate.pid == pid; });
    if (p == pod_.processes.end())
      throw OsError("ERR_PROCESS_GONE", "ptrace", ESRCH, "a process has ended")
          .in_process(static_cast<int>(pid));
    return *p;
  };
  const auto process = [&](int64_t pid) -> RebuildContext& {
    const auto known = processes.find(pid);
    if (known != processes.end()) return *known->second.context;
    return *processes.emplace(pid, enter(frozen(pid))).first->second.context;
  };
  // A filter of its own might kill a process for a call that we let it make: told before the first is entered.
  for (const Value& change : changes.as_list()) {
    for (const Value& use : change.at("uses").as_list()) {
      const FrozenProcess& p = frozen(use.at("pid").as_int());
      const auto status = try_read_status(p.dir());
      if (!p.readable() || !status || has_own_filter(*status))
        throw OsError(
            "ERR_NOT_PERMITTED", "ptrace", EPERM,
            "making a call in a process that has shut itself off (seccomp(2), prctl(2)); name others")
            .in_process(p.pid)
            .on_fd(static_cast<int>(use.at("fd").as_int()));
    }
  }
  int64_t number = 0;
  for (const Value& change : changes.as_list()) {
    ++number;
    UniqueFd fd;  // the description, once it is made
    const Value& give = change.at("give");
    if (const Value* handle = give.find("handle"))
      fd.reset(fcntl(handles_.at(static_cast<size_t>(handle->as_int(0, INT32_MAX))).dup.get(),
                     F_DUPFD_CLOEXEC, 0));
    for (const Value& use : change.at("uses").as_list()) {
      const int64_t pid = use.at("pid").as_int();
      RebuildContext& c = process(pid);
      try {
        made.push_back({&c, fd ? c.push(fd.get()) : kGiven.rebuild(give, c), &use, number});
        if (!use.at("watched").as_list().empty()) check_pollable(c.take(made.back().fd).get());
      } catch (OsError& e) {
        e.in_process(static_cast<int>(pid)).on_fd(static_cast<int>(use.at("fd").as_int()));
        throw;
      }
      if (!fd) fd = c.take(made.back().fd);
    }
  }
  Watched done;
  while (!made.empty()) {
    const Made m = made.back();
    made.pop_back();
    put_in_place(*m.context, m.fd, *m.use, m.change, &done);
  }
  for (auto& [pid, changed] : processes) changed.foothold->remove();
}

}  // namespace virt
