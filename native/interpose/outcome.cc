#include "interpose/outcome.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <csignal>
#include <cstddef>

namespace virt {
namespace {

Outcome when(bool yes) { return yes ? Outcome::done : Outcome::open; }

Outcome outcome_of_socket(const Call& call) {
  const int fd = call.socket.get();
  sockaddr_storage a{};
  socklen_t size = sizeof a;
  switch (call.kind) {
    case CallKind::send:
    case CallKind::message:
      return Outcome::done;
    case CallKind::listen: {
      int listening = 0;
      socklen_t length = sizeof listening;
      getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &length);
      return when(listening != 0);
    }
    case CallKind::bind:
      if (getsockname(fd, reinterpret_cast<sockaddr*>(&a), &size) != 0) return Outcome::nothing;
      if (a.ss_family == AF_UNIX) return when(size > offsetof(sockaddr_un, sun_path));
      return when(port_of(a) > 0);
    default:
      break;
  }
  if (getpeername(fd, reinterpret_cast<sockaddr*>(&a), &size) == 0) return Outcome::done;
  tcp_info info{};
  socklen_t length = sizeof info;
  // One that does not wait for its connection is under way.
  if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length) == 0 && info.tcpi_state == TCP_SYN_SENT)
    return when((fcntl(fd, F_GETFL) & O_NONBLOCK) != 0);
  return Outcome::open;
}

}  // namespace

Seen look_at(const std::string& path, bool follow) {
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

bool follows(const Call& call) {
  switch (call.kind) {
    case CallKind::open:
    case CallKind::read:
    case CallKind::truncate:
    case CallKind::execute:
    case CallKind::mode:
      return true;
    case CallKind::owner:
      return call.entry->number != SYS_lchown && (call.flags & AT_SYMLINK_NOFOLLOW) == 0;
    default:
      return false;
  }
}

bool may_change(const Call& call, const Seen& before) {
  switch (call.kind) {
    case CallKind::open:
      if ((call.flags & O_PATH) != 0 || (call.flags & O_TMPFILE) == O_TMPFILE)
        return false;  // nameless: nothing outside
      if (!before.there) return (call.flags & O_CREAT) != 0;
      if ((call.flags & (O_CREAT | O_EXCL)) == (O_CREAT | O_EXCL) || S_ISDIR(before.mode)) return false;
      if (!S_ISREG(before.mode) && !S_ISFIFO(before.mode))
        return false;                                            // a device is not changed by opening it
      return (call.flags & (O_WRONLY | O_RDWR | O_TRUNC)) != 0;  // else created by nobody, read only
    case CallKind::make:
    case CallKind::link:
      return !before.there;
    case CallKind::execute:
      // Which of the places in PATH it is, only the attempt tells; what cannot be executed is none.
      return before.there && S_ISREG(before.mode) && (before.mode & 0111) != 0;
    default:
      return before.there;
  }
}

Outcome outcome_of(const Watched& w) {
  const Call& call = w.call;
  if (call.socket) return outcome_of_socket(call);
  const auto same = [](const Seen& a, const Seen& b) {
    return a.there && b.there && a.inode == b.inode && a.device == b.device;
  };
  const uint64_t value = call.argument(call.entry->value);
  switch (call.kind) {
    case CallKind::open:
      // Of one that was there only the right to write it tells; that does not change so soon.
      if (w.before.there)
        return faccessat(AT_FDCWD, call.path.c_str(), W_OK, AT_EACCESS) == 0 ? Outcome::done
                                                                             : Outcome::nothing;
      return when(look_at(call.path, true).there);
    case CallKind::read:
      return faccessat(AT_FDCWD, call.path.c_str(), R_OK, AT_EACCESS) == 0 ? Outcome::done : Outcome::nothing;
    case CallKind::make:
    case CallKind::link:
      return when(look_at(call.path, false).there);
    case CallKind::remove:
      return when(!same(look_at(call.path, false), w.before));
    case CallKind::rename:
      return when(same(look_at(call.path2, false), w.before) && !same(w.before, w.before2));
    case CallKind::mode: {
      const Seen now = look_at(call.path, true);
      return when(now.there && (now.mode & 07777) == (value & 07777));
    }
    case CallKind::owner: {
      const Seen now = look_at(call.path, follows(call));
      const uint64_t gid = call.argument(call.entry->value + 1);
      const auto asked = [](uint64_t id, uint32_t is) {
        return static_cast<uint32_t>(id) == ~0U || static_cast<uint32_t>(id) == is;
      };
      return when(now.there && asked(value, now.uid) && asked(gid, now.gid));
    }
    case CallKind::truncate:
      return when(look_at(call.path, true).size == static_cast<int64_t>(value));
    case CallKind::execute:
    case CallKind::look:
    case CallKind::kill:
      return Outcome::done;
    default:
      return Outcome::nothing;
  }
}

}  // namespace virt
