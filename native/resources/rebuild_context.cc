#include "resources/rebuild_context.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/error.h"
#include "sys/message.h"

namespace virt {
namespace {

std::string directory_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == 0 || slash == std::string::npos ? "/" : path.substr(0, slash);
}

// Copies a whole file, holes left out.
void copy_content(int from, int to, uint64_t size) {
  if (ftruncate(to, static_cast<off_t>(size)) != 0)
    throw OsError("ftruncate", errno, "sizing an unlinked file");
  off_t at = 0;
  while (at < static_cast<off_t>(size)) {
    const off_t data = lseek(from, at, SEEK_DATA);
    if (data < 0 && errno == ENXIO) return;
    if (data < 0) throw OsError("lseek", errno, "reading a carried file");
    off_t end = lseek(from, data, SEEK_HOLE);
    if (end < 0) end = static_cast<off_t>(size);
    check(lseek(to, data, SEEK_SET), "lseek", "writing an unlinked file");
    at = data;
    while (at < end) {
      const ssize_t n = sendfile(to, from, &at, static_cast<size_t>(end - at));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) throw OsError("sendfile", errno, "writing an unlinked file");
      if (n == 0)
        throw OsError("ERR_IMAGE_DAMAGED", "sendfile", ENODATA, "a carried file is shorter than it was");
    }
  }
}

}  // namespace

RebuildContext::RebuildContext(Agent& agent, Borrowed seed, UniqueFd seed_pidfd, int first_fd)
    : agent_(&agent), seed_(seed), pidfd_(std::move(seed_pidfd)), first_fd_(first_fd) {}

const Value& RebuildContext::file(int64_t id) const {
  if (id < 0 || static_cast<size_t>(id) >= files.size()) throw BadValue("a file id that is not in the image");
  return files[static_cast<size_t>(id)];
}

const Value& RebuildContext::object(int64_t id) const {
  if (id < 0 || static_cast<size_t>(id) >= objects.size())
    throw BadValue("an object id that is not in the image");
  return objects[static_cast<size_t>(id)];
}

int RebuildContext::run_for_fd(Batch& b, size_t index, const char* call, const char* doing) {
  const size_t moved = b.call(SYS_fcntl, 0, F_DUPFD_CLOEXEC, first_fd_);
  b.from(1, index);
  b.call(SYS_close, 0);
  b.from(1, index);
  run(b);
  b.must(index, call, doing);
  return static_cast<int>(
      b.must(moved, "fcntl", "moving a descriptor to its place (raise the limit of open files)"));
}

int RebuildContext::open_in_pod(const std::string& path, int flags, int mode) {
  Batch b = batch();
  const size_t opened = b.call(SYS_openat, AT_FDCWD, b.in(path), flags | O_CLOEXEC | O_NOCTTY, mode);
  b.or_stop();
  try {
    return run_for_fd(b, opened, "open", "opening a file inside the pod");
  } catch (OsError& e) {
    e.at_path(path);
    throw;
  }
}

RemoteAddress RebuildContext::lend(const std::string& bytes) {
  const int64_t at = call(SYS_mmap, 0, std::max<size_t>(bytes.size(), 1), PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (at < 0 && at > -4096) throw OsError("mmap", static_cast<int>(-at), "making room in the seed");
  agent_->memory().write(static_cast<RemoteAddress>(at), bytes.data(), bytes.size());
  return static_cast<RemoteAddress>(at);
}

void RebuildContext::take_back(RemoteAddress address, size_t size) {
  call(SYS_munmap, address, std::max<size_t>(size, 1));
}

int RebuildContext::reopen(int seed_fd, int flags) {
  // What lies in /proc/PID/fd are links. O_NOFOLLOW has had its effect when the program opened the file.
  return open_in_pod("/proc/self/fd/" + std::to_string(seed_fd), flags & ~O_NOFOLLOW);
}

void RebuildContext::close(int seed_fd) { call(SYS_close, seed_fd); }

std::vector<int> RebuildContext::push_all(const std::vector<int>& fds) {
  constexpr size_t kMostAtOnce = 64;  // as many as a batch has room for
  if (fds.size() > kMostAtOnce) {
    std::vector<int> all;
    for (size_t at = 0; at < fds.size(); at += kMostAtOnce) {
      const auto from = fds.begin() + static_cast<ptrdiff_t>(at);
      const auto some =
          push_all({from, from + static_cast<ptrdiff_t>(std::min(kMostAtOnce, fds.size() - at))});
      all.insert(all.end(), some.begin(), some.end());
    }
    return all;
  }
  if (fds.empty()) return {};
  Batch pair = batch();
  const RemoteAddress ends = pair.out(2 * sizeof(int));
  const size_t made = pair.call(SYS_socketpair, AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, ends);
  run(pair);
  pair.must(made, "socketpair", "passing a descriptor into the pod");
  int end[2];
  pair.read(ends, end, sizeof end);
  const char ride = 0;
  const UniqueFd ours(static_cast<int>(syscall(SYS_pidfd_getfd, pidfd_.get(), end[1], 0)));
  const int sent = ours ? send_with_fds(ours.get(), &ride, 1, fds.data(), fds.size()) : -errno;

  Batch b = batch();
  const size_t room = CMSG_SPACE(sizeof(int) * fds.size());
  const RemoteAddress control = b.out(room), bytes = b.out(1);
  const iovec part{reinterpret_cast<void*>(bytes), 1};
  msghdr head{};
  head.msg_iov = reinterpret_cast<iovec*>(b.in(&part, sizeof part));
  head.msg_iovlen = 1;
  head.msg_control = reinterpret_cast<void*>(control);
  head.msg_controllen = room;
  const size_t got = b.call(SYS_recvmsg, end[0], b.in(&head, sizeof head), MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
  b.call(SYS_close, end[0]);
  b.call(SYS_close, end[1]);
  run(b);
  if (sent < 0) throw OsError("sendmsg", -sent, "passing a descriptor into the pod");
  b.must(got, "recvmsg", "passing a descriptor into the pod");
  alignas(cmsghdr) char received[CMSG_SPACE(sizeof(int) * kMostAtOnce)];
  b.read(control, received, room);
  const auto* message = reinterpret_cast<const cmsghdr*>(received);
  // Fewer if its table is full.
  if (message->cmsg_level != SOL_SOCKET || message->cmsg_type != SCM_RIGHTS ||
      message->cmsg_len != CMSG_LEN(sizeof(int) * fds.size()))
    throw OsError("ERR_TOO_MANY_FILES", "recvmsg", EMFILE, "passing a descriptor into the pod");
  std::vector<int> there(fds.size());
  std::memcpy(there.data(), CMSG_DATA(message), sizeof(int) * there.size());
  Batch place = batch();
  std::vector<size_t> moved;
  for (const int fd : there) {
    moved.push_back(place.call(SYS_fcntl, fd, F_DUPFD_CLOEXEC, first_fd_));
    place.call(SYS_close, fd);
  }
  run(place);
  for (size_t i = 0; i < there.size(); ++i)
    there[i] = static_cast<int>(place.must(moved[i], "fcntl", "moving a descriptor to its place"));
  return there;
}

UniqueFd RebuildContext::take(int seed_fd) const {
  UniqueFd fd(static_cast<int>(syscall(SYS_pidfd_getfd, pidfd_.get(), seed_fd, 0)));
  if (!fd) throw OsError("pidfd_getfd", errno, "taking a handle that was made in the pod");
  return fd;
}

RebuildContext::Roles& RebuildContext::object_fds(int64_t id,
                                                  const std::function<Roles(const Value&)>& make) {
  const auto known = roles_.find(id);
  if (known != roles_.end()) return known->second;
  return roles_.emplace(id, make(object(id))).first->second;
}

int RebuildContext::make_unlinked(const Value& file, int access) {
  const int64_t id = file.at("id").as_int();
  auto known = unlinked_.find(id);
  if (known == unlinked_.end()) {
    const std::string dir = directory_of(file.at("path").as_string());
    const int fd = open_in_pod(dir, O_TMPFILE | O_RDWR, static_cast<int>(file.at("mode").as_int() & 07777));
    const UniqueFd target = take(fd);
    copy_content(open_carried(file).get(), target.get(),
                 static_cast<uint64_t>(file.at("sizeBytes").as_int(0, INT64_MAX)));
    // open(2) applied the umask; the file had exactly this mode.
    fchmod(target.get(), static_cast<mode_t>(file.at("mode").as_int() & 07777));
    // Held without write access: a file somebody can write cannot be a program's executable.
    known = unlinked_.emplace(id, reopen(fd, O_PATH)).first;
    close(fd);
  }
  return reopen(known->second, access);
}

int RebuildContext::mapped_file(int64_t id, int access) {
  const auto key = std::pair(id, access);
  if (const auto known = mapped_.find(key); known != mapped_.end()) return known->second;
  const Value& f = file(id);
  const int fd = f.get_bool("unlinked", false) ? make_unlinked(f, access)
                                               : open_in_pod(f.at("path").as_string(), access);
  mapped_.emplace(key, fd);
  return fd;
}

int RebuildContext::handle_fd(int64_t id) {
  const auto found = handle_fds.find(id);
  if (found != handle_fds.end()) return found->second;
  const int fd = make_handle(id);
  handle_fds[id] = fd;
  return fd;
}

void set_status_flags(int fd, int flags) {
  // Only these can be set after open(2); O_ASYNC comes with the owner.
  constexpr int kSettable = O_APPEND | O_NONBLOCK | O_DIRECT | O_NOATIME;
  const int now = fcntl(fd, F_GETFL);
  const int wanted = (now & ~kSettable) | (flags & kSettable);
  if (wanted != now) check(fcntl(fd, F_SETFL, wanted), "fcntl", "setting status flags");
}

}  // namespace virt
