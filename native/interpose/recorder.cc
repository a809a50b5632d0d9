#include "interpose/recorder.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <utility>

#include "interpose/address.h"
#include "interpose/caller.h"
#include "interpose/path.h"

namespace virt {
namespace {

constexpr size_t kMostCallers = 4096, kMostDestinations = 1024, kMostPending = 512;
constexpr int64_t kPatienceNs = 20'000'000, kMostPatienceNs = 5'000'000'000;
constexpr int kTurns = 4;

int64_t clock_ns(clockid_t clock) {
  timespec t{};
  clock_gettime(clock, &t);
  return int64_t{t.tv_sec} * 1'000'000'000 + t.tv_nsec;
}

}  // namespace

Recorder::Seen Recorder::look(const std::string& path, bool follow) {
  struct stat st {};
  Seen s;
  if (fstatat(AT_FDCWD, path.c_str(), &st, follow ? 0 : AT_SYMLINK_NOFOLLOW) != 0) return s;
  s.there = true;
  s.device = st.st_dev;
  s.inode = st.st_ino;
  s.mode = st.st_mode;
  s.uid = st.st_uid;
  s.gid = st.st_gid;
  s.size = st.st_size;
  return s;
}

const Recorder::Caller& Recorder::caller_of(pid_t tid) {
  const auto known = callers_.find(tid);
  if (known != callers_.end()) return known->second;
  if (callers_.size() >= kMostCallers) callers_.clear();
  Caller c;
  const std::string status = read_start(proc_file(tid, "status"));
  const size_t at = status.find("\nTgid:");
  c.pid = at == std::string::npos ? tid : static_cast<pid_t>(std::atoi(status.c_str() + at + 6));
  c.program = read_link_of(proc_file(tid, "exe"));
  c.root = read_link_of(proc_file(tid, "root"));
  return callers_.emplace(tid, std::move(c)).first->second;
}

bool Recorder::describe_file(Pending* p) {
  const RecordedCall& call = *p->call;
  const uint64_t* args = p->question.args;
  const pid_t tid = p->question.tid;
  p->path = path_of_call(tid, p->who.root, call, args, call.directory, call.path);
  if (p->path.empty() || is_made_up(p->path)) return false;
  if (call.path2 >= 0) {
    p->path2 = path_of_call(tid, p->who.root, call, args, call.directory2, call.path2);
    if (p->path2.empty()) return false;
    p->before2 = look(p->path2, false);
  }
  if (call.flags >= 0) p->flags = static_cast<int>(args[call.flags]);
  if (call.number == SYS_creat) p->flags = O_WRONLY | O_CREAT | O_TRUNC;
  if (call.number == SYS_openat2) {
    open_how how{};
    if (read_memory(tid, args[2], &how, sizeof how) < sizeof how.flags) return false;
    p->flags = static_cast<int>(how.flags);
    if ((p->flags & (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC)) == 0) return false;
  }
  const bool follow =
      call.kind == CallKind::open || call.kind == CallKind::truncate || call.kind == CallKind::execute ||
      call.kind == CallKind::mode ||
      (call.kind == CallKind::owner && call.number != SYS_lchown && (p->flags & AT_SYMLINK_NOFOLLOW) == 0);
  p->before = look(p->path, follow);
  switch (call.kind) {
    case CallKind::open:
      if ((p->flags & O_PATH) != 0 || (p->flags & O_TMPFILE) == O_TMPFILE)
        return false;  // nameless: nothing outside
      if (!p->before.there) return (p->flags & O_CREAT) != 0;
      if ((p->flags & (O_CREAT | O_EXCL)) == (O_CREAT | O_EXCL) || S_ISDIR(p->before.mode)) return false;
      if (!S_ISREG(p->before.mode) && !S_ISFIFO(p->before.mode))
        return false;  // a device is not changed by opening it
      if ((p->flags & (O_WRONLY | O_RDWR | O_TRUNC)) == 0) return false;  // created by nobody, read only
      return true;
    case CallKind::make:
      return !p->before.there;
    case CallKind::execute:
      // Which of the places in PATH it is, only the attempt tells; what cannot be executed is none.
      return p->before.there && S_ISREG(p->before.mode) && (p->before.mode & 0111) != 0;
    default:
      return p->before.there;
  }
}

bool Recorder::describe_socket(Pending* p) {
  const RecordedCall& call = *p->call;
  const uint64_t* args = p->question.args;
  const UniqueFd process(static_cast<int>(syscall(SYS_pidfd_open, p->who.pid, 0)));
  if (!process) return false;
  p->socket.reset(
      static_cast<int>(syscall(SYS_pidfd_getfd, process.get(), static_cast<int>(args[call.descriptor]), 0)));
  if (!p->socket) return false;
  if (call.value < 0) return true;
  const auto size = static_cast<socklen_t>(std::min<uint64_t>(args[call.value + 1], sizeof p->address));
  if (size < sizeof p->address.ss_family) return false;
  if (read_memory(p->question.tid, args[call.value], &p->address, size) != size) return false;
  p->address_size = size;
  const auto family = p->address.ss_family;
  if (family != AF_INET && family != AF_INET6 && family != AF_UNIX)
    return false;  // netlink and the like stay inside
  if (family == AF_UNIX) {
    int port = 0;
    p->path = address_text(p->address, size, &port);
    if (p->path.empty()) return false;
    if (p->path[0] != '@' && p->path[0] != '/')
      p->path = read_link_of(proc_file(p->question.tid, "cwd")) + "/" + p->path;
  }
  return true;
}

bool Recorder::describe(const Question& question, const RecordedCall& call, Pending* p) {
  p->call = &call;
  p->question = question;
  p->realtime_ns = clock_ns(CLOCK_REALTIME);
  p->since_ns = clock_ns(CLOCK_MONOTONIC);
  p->who = caller_of(question.tid);
  // Whoever shares its number is another program soon, or has another root.
  if (call.kind == CallKind::execute || call.kind == CallKind::root) callers_.clear();
  if (call.kind == CallKind::root) return false;
  switch (call.kind) {
    case CallKind::bind:
    case CallKind::connect:
    case CallKind::listen:
    case CallKind::send:
      return describe_socket(p);
    default:
      return describe_file(p);
  }
}

// The caller waits for every step here, and runs when we sleep: all that can be done later is.
void Recorder::handle(const Question& question) {
  const RecordedCall* call = recorded_call(question.number);
  if (call == nullptr || question.tid == 0 || question.tid == getpid() || paused_) {
    (void)listener_.let_pass(question);
    return;
  }
  // Its former call is over. And what others have done is looked at before this one can change it again.
  for (Pending& p : pending_) settle(p, p.question.tid == question.tid);
  forget_settled();
  Pending pending;
  const bool effect = describe(question, *call, &pending);
  if (!listener_.let_pass(question) || !effect || pending.who.pid == getpid()) return;
  if (pending_.size() >= kMostPending) pending_.pop_front();
  pending_.push_back(std::move(pending));
  // A socket may be closed at once; a few turns are enough for a call that does not wait.
  Pending& p = pending_.back();
  for (int turns = 0; p.call != nullptr && p.socket && turns < kTurns; ++turns) {
    sched_yield();
    settle(p, false);
  }
}

// Whether the call has ended, by where its thread is now. One that runs may not have come to it yet (a machine under load).
bool Recorder::is_over(const Pending& p, int64_t now_ns) {
  const std::string text = read_start(proc_file(p.question.tid, "syscall"));  // proc_pid_syscall(5)
  if (text.starts_with("running")) return now_ns - p.since_ns > kMostPatienceNs;
  const std::string number = std::to_string(p.question.number) + " ";
  return text.compare(0, number.size(), number) != 0;
}

void Recorder::catch_up(bool all) {
  const int64_t now = clock_ns(CLOCK_MONOTONIC);
  for (Pending& p : pending_) {
    settle(p, all || (now - p.since_ns > kPatienceNs && is_over(p, now)));
  }
  forget_settled();
  for (const Pending& p : done_) write_down(p);
  done_.clear();
  journal_.flush();
}

void Recorder::settle(Pending& p, bool last) {
  if (p.call == nullptr) return;
  const Outcome o = outcome(p);
  if (o == Outcome::open && !last) return;
  const bool effect = o == Outcome::done;
  if (effect && p.socket) write_down(p);  // at once, and let go: our dup keeps it open
  Pending over = std::exchange(p, Pending{});
  if (effect && !over.socket) done_.push_back(std::move(over));
}

void Recorder::forget_settled() {
  std::erase_if(pending_, [](const Pending& p) { return p.call == nullptr; });
}

Recorder::Outcome Recorder::outcome_of_socket(const Pending& p) {
  const int fd = p.socket.get();
  sockaddr_storage a{};
  socklen_t size = sizeof a;
  switch (p.call->kind) {
    case CallKind::send:
      return Outcome::done;
    case CallKind::listen: {
      int listening = 0;
      socklen_t length = sizeof listening;
      getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &length);
      return listening != 0 ? Outcome::done : Outcome::open;
    }
    case CallKind::bind: {
      if (getsockname(fd, reinterpret_cast<sockaddr*>(&a), &size) != 0) return Outcome::nothing;
      if (a.ss_family == AF_INET)
        return reinterpret_cast<sockaddr_in&>(a).sin_port != 0 ? Outcome::done : Outcome::open;
      if (a.ss_family == AF_INET6)
        return reinterpret_cast<sockaddr_in6&>(a).sin6_port != 0 ? Outcome::done : Outcome::open;
      return size > offsetof(sockaddr_un, sun_path) ? Outcome::done : Outcome::open;
    }
    default:
      break;
  }
  if (getpeername(fd, reinterpret_cast<sockaddr*>(&a), &size) == 0) return Outcome::done;
  tcp_info info{};
  socklen_t length = sizeof info;
  // One that does not wait for its connection is under way.
  if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length) == 0 && info.tcpi_state == TCP_SYN_SENT)
    return (fcntl(fd, F_GETFL) & O_NONBLOCK) != 0 ? Outcome::done : Outcome::open;
  return Outcome::open;
}

Recorder::Outcome Recorder::outcome(const Pending& p) const {
  if (p.socket) return outcome_of_socket(p);
  const auto when = [](bool yes) { return yes ? Outcome::done : Outcome::open; };
  const auto same = [](const Seen& a, const Seen& b) {
    return a.there && b.there && a.inode == b.inode && a.device == b.device;
  };
  const uint64_t value = p.call->value >= 0 ? p.question.args[p.call->value] : 0;
  switch (p.call->kind) {
    case CallKind::open:
      // Of one that was there only the right to write it tells; that does not change so soon.
      if (p.before.there)
        return faccessat(AT_FDCWD, p.path.c_str(), W_OK, AT_EACCESS) == 0 ? Outcome::done : Outcome::nothing;
      return when(look(p.path, true).there);
    case CallKind::make:
      return when(look(p.path, false).there);
    case CallKind::remove:
      return when(!same(look(p.path, false), p.before));
    case CallKind::rename:
      return when(same(look(p.path2, false), p.before) && !same(p.before, p.before2));
    case CallKind::mode: {
      const Seen now = look(p.path, true);
      return when(now.there && (now.mode & 07777) == (value & 07777));
    }
    case CallKind::owner: {
      const Seen now = look(p.path, p.call->number != SYS_lchown && (p.flags & AT_SYMLINK_NOFOLLOW) == 0);
      const uint64_t gid = p.question.args[p.call->value + 1];
      const auto asked = [](uint64_t id, uint32_t is) {
        return static_cast<uint32_t>(id) == ~0U || static_cast<uint32_t>(id) == is;
      };
      return when(now.there && asked(value, now.uid) && asked(gid, now.gid));
    }
    case CallKind::truncate:
      return when(look(p.path, true).size == static_cast<int64_t>(value));
    case CallKind::execute:
      return Outcome::done;
    default:
      return Outcome::nothing;
  }
}

void Recorder::write_down(const Pending& p) {
  static constexpr const char* kNames[] = {"write",    "remove", "rename",  "make",   "mode", "owner",
                                           "truncate", "bind",   "connect", "listen", "send", "execute"};
  const bool created = p.call->kind == CallKind::open && !p.before.there;
  JournalLine line;
  line.text("time", journal_time(p.realtime_ns)).number("pid", p.who.pid).text("program", p.who.program);
  line.text("call", p.call->name).text("kind", created ? "create" : kNames[static_cast<int>(p.call->kind)]);
  if (p.socket) {
    sockaddr_storage a = p.address;
    socklen_t size = p.address_size;
    // The port that the kernel chose, where it was to choose one.
    if (p.call->kind == CallKind::bind || p.call->kind == CallKind::listen) {
      size = sizeof a;
      getsockname(p.socket.get(), reinterpret_cast<sockaddr*>(&a), &size);
    }
    int port = -1;
    std::string text = address_text(a, size, &port);
    if (a.ss_family == AF_UNIX) {
      std::string path = p.path.empty() ? text : p.path;
      if (path.empty()) return;
      if (path[0] != '@' && path[0] != '/')
        path = read_link_of(proc_file(p.question.tid, "cwd")) + "/" + path;
      line.text("path", path[0] == '@' ? path : canonical_path(path));
    } else {
      line.text("address", text).number("port", port);
    }
    int type = 0;
    socklen_t length = sizeof type;
    getsockopt(p.socket.get(), SOL_SOCKET, SO_TYPE, &type, &length);
    line.text("socket", type == SOCK_STREAM ? "stream" : type == SOCK_DGRAM ? "datagram" : "other");
    if (p.call->kind == CallKind::send) {
      // Once a minute is enough to know whom it talks to.
      constexpr int64_t kMinuteNs = 60'000'000'000;
      const std::string whom = std::to_string(p.who.pid) + " " + text + " " + std::to_string(port);
      if (sent_.size() >= kMostDestinations) sent_.clear();
      int64_t& last = sent_[whom];
      if (last != 0 && p.since_ns - last < kMinuteNs) return;
      last = p.since_ns;
    }
  } else {
    line.text("path", canonical_path(p.path));
    if (!p.path2.empty()) line.text("to", canonical_path(p.path2));
  }
  const uint64_t value = p.call->value >= 0 ? p.question.args[p.call->value] : 0;
  if (p.call->kind == CallKind::mode) {
    char mode[8];
    std::snprintf(mode, sizeof mode, "%04o", static_cast<unsigned>(value & 07777));
    line.text("mode", mode);
  }
  if (p.call->kind == CallKind::truncate) line.number("sizeBytes", static_cast<int64_t>(value));
  if (p.call->kind == CallKind::owner) {
    line.number("uid", static_cast<int32_t>(value));
    line.number("gid", static_cast<int32_t>(p.question.args[p.call->value + 1]));
  }
  journal_.append(line);
}

}  // namespace virt
