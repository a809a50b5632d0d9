#include "relay/stash.h"

#include <fcntl.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "relay/stash_inet.h"
#include "relay/stash_unix.h"

#ifndef SIOCGSKNS
#define SIOCGSKNS 0x894C
#endif

namespace virt {
namespace {

// A program may fill rooms by taking addresses in them; that must end somewhere.
constexpr size_t kMostRooms = 16;

// The names of <linux/mount.h>, which cannot be included beside <sys/mount.h>.
constexpr unsigned kOpenCloexec = 1, kMountCloexec = 1, kSetString = 1, kCreate = 6;

}  // namespace

// A tmpfs that is mounted nowhere: its mount lives as long as its descriptor, or a socket that is bound in it.
int Stash::make_files() {
  const UniqueFd context(static_cast<int>(syscall(SYS_fsopen, "tmpfs", kOpenCloexec)));
  if (!context) return errno;
  const auto set = [&](const char* key, const char* value) {
    return syscall(SYS_fsconfig, context.get(), kSetString, key, value, 0) == 0;
  };
  if (!set("size", "4m") || !set("nr_inodes", "4096") || !set("mode", "0700") ||
      syscall(SYS_fsconfig, context.get(), kCreate, nullptr, nullptr, 0) != 0) {
    return errno;
  }
  files_.reset(
      static_cast<int>(syscall(SYS_fsmount, context.get(), kMountCloexec, MS_NOSUID | MS_NODEV | MS_NOEXEC)));
  if (!files_ || fchdir(files_.get()) != 0 || chroot(".") != 0) return errno;
  return 0;
}

// The room that the thread has just entered: every address of it is local.
int Stash::make_room() {
  StashRoom room;
  if (const int error = room.net.open(); error != 0) return error;
  if (const int error = room.net.bring_up(kLoopback); error != 0) return error;
  if (const int error = room.net.add_local_route(AF_INET, nullptr, 0, kLoopback); error != 0) return error;
  const int six = room.net.add_local_route(AF_INET6, nullptr, 0, kLoopback);
  if (six != 0 && six != EOPNOTSUPP && six != EAFNOSUPPORT) return six;  // a kernel without IPv6
  const UniqueFd any(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!any) return errno;
  room.space.reset(ioctl(any.get(), SIOCGSKNS));
  if (!room.space || fcntl(room.space.get(), F_SETFD, FD_CLOEXEC) != 0) return errno;
  rooms_.push_back(std::move(room));
  inside_ = rooms_.size() - 1;
  return 0;
}

int Stash::enter_room(size_t room) {
  if (room == inside_) return 0;
  if (room == rooms_.size()) {
    if (unshare(CLONE_NEWNET) != 0) return errno;
    const int error = make_room();
    // Back to one that is whole.
    if (error != 0 && setns(rooms_[inside_].space.get(), CLONE_NEWNET) != 0) return errno;
    return error;
  }
  if (setns(rooms_[room].space.get(), CLONE_NEWNET) != 0) return errno;
  inside_ = room;
  return 0;
}

int Stash::open() {
  if (const int error = thread_.start(); error != 0) return error;
  const int error = thread_.run([&] {
    const int made = make_room();
    if (made == 0) no_files_ = make_files();
    return made;
  });
  if (error != 0) thread_.stop();
  return error;
}

int Stash::make_pair(const StashRequest& request, StashPair* made) {
  if (request.local.size > sizeof request.local.storage || request.peer.size > sizeof request.peer.storage) {
    return EINVAL;
  }
  if (request.family == AF_UNIX) return unix_pair(request, no_files_, made);
  if (request.family == AF_INET || request.family == AF_INET6) {
    return inet_pair(request, rooms_[inside_], made);
  }
  return EAFNOSUPPORT;
}

size_t Stash::rooms() {
  size_t count = 0;
  thread_.run([&] {
    count = rooms_.size();
    return 0;
  });
  return count;
}

int Stash::pair(const StashRequest& request, StashPair* made) {
  return thread_.run([&] {
    for (size_t room = 0; room < kMostRooms; ++room) {
      if (const int error = enter_room(room); error != 0) return error;
      StashPair pair;
      const int error = make_pair(request, &pair);
      if (error == EADDRINUSE || error == EADDRNOTAVAIL) continue;
      if (error == 0) *made = std::move(pair);
      return error;
    }
    return EADDRNOTAVAIL;
  });
}

}  // namespace virt
