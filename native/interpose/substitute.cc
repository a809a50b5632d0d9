#include "interpose/substitute.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/openat2.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "interpose/address.h"
#include "interpose/caller.h"
#include "interpose/glob.h"
#include "interpose/outcome.h"
#include "interpose/path.h"

namespace virt {
namespace {

constexpr size_t kMostMessageBytes = 1 << 20, kMostParts = 1024, kMostControlBytes = 4096;

std::string after(const std::string& text, const char* word) {
  const size_t at = text.find(word);
  if (at == std::string::npos) return {};
  const size_t from = at + std::strlen(word);
  return text.substr(from, text.find('\n', from) - from);
}

// The n-th number of a line.
unsigned long nth(const std::string& line, int n, int base) {
  const char* at = line.c_str();
  char* end = nullptr;
  unsigned long value = std::strtoul(at, &end, base);
  for (; n > 0; --n) {
    at = end;
    value = std::strtoul(at, &end, base);
  }
  return value;
}

int take_capabilities(unsigned long long effective) {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2] = {};
  if (syscall(SYS_capget, &header, data) != 0) return errno;
  const uint32_t wanted[2] = {static_cast<uint32_t>(effective), static_cast<uint32_t>(effective >> 32)};
  for (int i = 0; i < 2; ++i) {
    data[i].effective = data[i].permitted = data[i].permitted & wanted[i];
    data[i].inheritable = 0;
  }
  return syscall(SYS_capset, &header, data) == 0 ? 0 : errno;
}

// The path that takes the place of `path`: with what lay below the rule's, where that is no pattern.
std::string target_path(const Rule& rule, const std::string& path) {
  const bool below = !rule.path.empty() && !is_pattern(rule.path) && path.size() > rule.path.size();
  return below ? rule.to_path + path.substr(rule.path.size()) : rule.to_path;
}

int open_target(const Call& call, const std::string& path) {
  const uint64_t* args = call.question.args;
  uint64_t mode = 0;
  switch (call.entry->number) {
    case SYS_creat:
      mode = args[1];
      break;
    case SYS_open:
      mode = args[2];
      break;
    case SYS_openat2: {
      open_how how{};
      if (read_memory(call.question.tid, args[2], &how, sizeof how) != sizeof how) {
        errno = EFAULT;
        return -1;
      }
      mode = how.mode;
      break;
    }
    default:
      mode = args[3];
  }
  return open(path.c_str(), call.flags | O_CLOEXEC, static_cast<mode_t>(mode & 07777));
}

// Any other call of one path, all of whose other arguments are numbers.
long call_with_path(const Call& call, const std::string& path) {
  uint64_t a[6];
  std::memcpy(a, call.question.args, sizeof a);
  a[call.entry->path] = reinterpret_cast<uint64_t>(path.c_str());
  if (call.entry->directory >= 0) a[call.entry->directory] = static_cast<uint64_t>(AT_FDCWD);
  return syscall(static_cast<long>(call.entry->number), a[0], a[1], a[2], a[3], a[4], a[5]);
}

// A connect(2) that was interrupted goes on, and is asked for again.
int connect_again(int fd, const sockaddr_storage& a, socklen_t size, bool known) {
  if (connect(fd, reinterpret_cast<const sockaddr*>(&a), size) == 0) return 0;
  if (!known || (errno != EISCONN && errno != EALREADY) || (fcntl(fd, F_GETFL) & O_NONBLOCK) != 0)
    return errno;
  pollfd p{fd, POLLOUT, 0};
  while (poll(&p, 1, -1) < 0 && errno == EINTR) {
  }
  int error = 0;
  socklen_t length = sizeof error;
  return getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) == 0 ? error : errno;
}

// The message of a sendmsg(2), read from the caller; with an address of our own.
struct Message {
  std::vector<char> data, control;
  msghdr head{};
  iovec part{};

  int read(pid_t tid, uint64_t from) {
    msghdr theirs{};
    if (read_memory(tid, from, &theirs, sizeof theirs) != sizeof theirs) return EFAULT;
    if (theirs.msg_iovlen > kMostParts) return EMSGSIZE;
    std::vector<iovec> parts(theirs.msg_iovlen);
    const size_t bytes = parts.size() * sizeof(iovec);
    if (read_memory(tid, reinterpret_cast<uint64_t>(theirs.msg_iov), parts.data(), bytes) != bytes)
      return EFAULT;
    for (const iovec& p : parts) {
      const size_t at = data.size();
      if (p.iov_len > kMostMessageBytes - at) return EMSGSIZE;
      data.resize(at + p.iov_len);
      if (read_memory(tid, reinterpret_cast<uint64_t>(p.iov_base), data.data() + at, p.iov_len) != p.iov_len)
        return EFAULT;
    }
    if (theirs.msg_controllen > kMostControlBytes) return EMSGSIZE;
    control.resize(theirs.msg_controllen);
    if (read_memory(tid, reinterpret_cast<uint64_t>(theirs.msg_control), control.data(), control.size()) !=
        control.size())
      return EFAULT;
    part = {data.data(), data.size()};
    head.msg_iov = &part;
    head.msg_iovlen = 1;
    head.msg_control = control.empty() ? nullptr : control.data();
    head.msg_controllen = control.size();
    // Descriptors and credentials would be ours.
    for (cmsghdr* c = CMSG_FIRSTHDR(&head); c != nullptr; c = CMSG_NXTHDR(&head, c)) {
      if (c->cmsg_level == SOL_SOCKET) return EOPNOTSUPP;
    }
    return 0;
  }
};

// What sendto(2) or sendmsg(2) gives, or -errno.
int64_t send_to(const Listener& listener, const Call& call, sockaddr_storage* a, socklen_t size) {
  const uint64_t* args = call.question.args;
  const pid_t tid = call.question.tid;
  Message m;
  int flags = 0;
  if (call.kind == CallKind::message) {
    if (const int error = m.read(tid, args[1]); error != 0) return -error;
    flags = static_cast<int>(args[2]);
  } else {
    if (args[2] > kMostMessageBytes) return -EMSGSIZE;
    m.data.resize(args[2]);
    if (read_memory(tid, args[1], m.data.data(), m.data.size()) != m.data.size()) return -EFAULT;
    m.part = {m.data.data(), m.data.size()};
    m.head.msg_iov = &m.part;
    m.head.msg_iovlen = 1;
    flags = static_cast<int>(args[3]);
  }
  if (!listener.waits(call.question)) return -EINTR;  // it was read of somebody else
  m.head.msg_name = a;
  m.head.msg_namelen = size;
  const ssize_t n = sendmsg(call.socket.get(), &m.head, flags | MSG_NOSIGNAL);
  return n < 0 ? -errno : n;
}

}  // namespace

int become(pid_t tid) {
  if (unshare(CLONE_FS) != 0) return errno;  // a umask of our own
  const std::string status = read_start(proc_file(tid, "status"));
  if (status.empty()) return ESRCH;
  umask(static_cast<mode_t>(nth(after(status, "\nUmask:"), 0, 8)));
  const auto uid = static_cast<uid_t>(nth(after(status, "\nUid:"), 1, 10));
  const auto gid = static_cast<gid_t>(nth(after(status, "\nGid:"), 1, 10));
  const unsigned long long effective = std::strtoull(after(status, "\nCapEff:").c_str(), nullptr, 16);
  // The raw calls: the library's would change every thread.
  if (uid != geteuid() || gid != getegid()) {
    std::vector<gid_t> groups;
    const std::string line = after(status, "\nGroups:");
    const char* at = line.c_str();
    for (char* end = nullptr;; at = end) {
      const unsigned long group = std::strtoul(at, &end, 10);
      if (end == at) break;
      groups.push_back(static_cast<gid_t>(group));
    }
    prctl(PR_SET_KEEPCAPS, 1);
    if (syscall(SYS_setgroups, groups.size(), groups.data()) != 0 ||
        syscall(SYS_setresgid, gid, gid, gid) != 0 || syscall(SYS_setresuid, uid, uid, uid) != 0)
      return errno;
  }
  // Capabilities of a namespace of its own are none here.
  const bool own_namespace = read_link_of(proc_file(tid, "ns/user")) != read_link_of("/proc/self/ns/user");
  return take_capabilities(own_namespace ? 0 : effective);
}

void substitute(const Listener& listener, Call call, const Rule& rule, SocketNames& names,
                Recorder& recorder) {
  if (!listener.waits(call.question)) return;
  const auto record = [&](int error, const std::string& asked, bool created = false) {
    if (recorder.wants(call.kind))
      recorder.write_answered(call, error == EINPROGRESS ? 0 : error, asked, created);
  };
  const auto finish = [&](int64_t value, int error, const std::string& asked) {
    // It was made just now, whenever it was asked about; and is written down before the caller goes on.
    const Recorder::Answering made(recorder, &call);
    record(error, asked);
    (void)listener.answer(call.question, value, error);
  };
  if (!call.socket) {
    const std::string asked = call.path;
    const std::string path = target_path(rule, call.path);
    if (call.kind == CallKind::open || call.kind == CallKind::read) {
      const bool creates = (call.flags & O_CREAT) != 0 && !look_at(path, true).there;
      const UniqueFd fd(open_target(call, path));
      const int error = fd ? 0 : errno;
      call.path = path;
      if (error != 0) return finish(0, error, asked);
      const Recorder::Answering made(recorder, &call);
      const bool given = listener.inject(call.question, fd.get(), (call.flags & O_CLOEXEC) != 0);
      const int refused = given ? 0 : errno;
      record(refused, asked, creates);
      if (!given) (void)listener.answer(call.question, 0, refused);  // its table is full
      return;
    }
    if (call.entry->path < 0) {
      (void)listener.let_pass(call.question);  // of a descriptor, which has its file already
      return;
    }
    const long value = call_with_path(call, path);
    const int error = value < 0 ? errno : 0;
    call.path = path;
    return finish(value, error, asked);
  }
  int port = -1;
  std::string asked = call.path.empty() ? address_text(call.address, call.address_size, &port) : call.path;
  if (port >= 0) asked += " port " + std::to_string(port);
  const sockaddr_storage original = call.address;
  if (!redirect_address(rule, &call.address, &call.address_size)) return finish(0, EAFNOSUPPORT, asked);
  if (!rule.to_path.empty()) call.path = rule.to_path;
  const int fd = call.socket.get();
  switch (call.kind) {
    case CallKind::bind:
      return finish(
          0, bind(fd, reinterpret_cast<const sockaddr*>(&call.address), call.address_size) == 0 ? 0 : errno,
          asked);
    case CallKind::connect: {
      const bool known = names.knows(fd);
      names.remember(fd, original);
      return finish(0, connect_again(fd, call.address, call.address_size, known), asked);
    }
    case CallKind::send:
    case CallKind::message: {
      const int64_t n = send_to(listener, call, &call.address, call.address_size);
      return finish(n < 0 ? 0 : n, n < 0 ? static_cast<int>(-n) : 0, asked);
    }
    default:
      (void)listener.let_pass(call.question);
  }
}

}  // namespace virt
