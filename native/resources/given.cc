// What a user puts in a descriptor's place (--remap fd:PID/FD=…): a path of the pod, a TCP address, or a descriptor of the
// supervisor. Only ever made: captured it is whatever it is.
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <exception>
#include <utility>

#include "base/error.h"
#include "resources/kinds.h"
#include "resources/rebuild_context.h"

namespace virt {
namespace {

constexpr int kConnectMs = 3000;  // the pod stands still meanwhile
// Of the flags that the descriptor had: those that mean the same with anything.
constexpr int kKept = O_ACCMODE | O_APPEND | O_NONBLOCK | O_DSYNC | O_SYNC;

// A descriptor that was made in the pod, closed again unless it is kept.
class Made {
 public:
  Made(RebuildContext& c, int fd) : context_(c), fd_(fd) {}
  Made(const Made&) = delete;
  Made& operator=(const Made&) = delete;
  ~Made() {
    try {
      if (fd_ >= 0) context_.close(fd_);
    } catch (const std::exception&) {
      // The process has died.
    }
  }
  [[nodiscard]] int fd() const { return fd_; }
  int keep() { return std::exchange(fd_, -1); }

 private:
  RebuildContext& context_;
  int fd_;
};

int make_socket(RebuildContext& c, int family, int type) {
  Batch b = c.batch();
  const size_t made = b.call(SYS_socket, family, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  return c.run_for_fd(b, made, "socket", "making a socket");
}

// 0 or errno. Not in the program's place, which would have to wait.
int connect_to(int fd, const sockaddr* address, socklen_t size) {
  if (connect(fd, address, size) == 0) return 0;
  if (errno != EINPROGRESS) return errno;
  pollfd p{fd, POLLOUT, 0};
  if (poll(&p, 1, kConnectMs) <= 0) return ETIMEDOUT;
  int error = 0;
  socklen_t length = sizeof error;
  return getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) == 0 ? error : errno;
}

int connected_tcp(const Value& to, RebuildContext& c) {
  const std::string& text = to.at("address").as_string();
  sockaddr_storage storage{};
  auto& in = reinterpret_cast<sockaddr_in&>(storage);
  auto& in6 = reinterpret_cast<sockaddr_in6&>(storage);
  const auto port = htons(static_cast<uint16_t>(to.at("port").as_int(1, 65535)));
  socklen_t size = sizeof in;
  if (inet_pton(AF_INET, text.c_str(), &in.sin_addr) == 1) {
    in.sin_family = AF_INET;
    in.sin_port = port;
  } else if (inet_pton(AF_INET6, text.c_str(), &in6.sin6_addr) == 1) {
    in6.sin6_family = AF_INET6;
    in6.sin6_port = port;
    size = sizeof in6;
  } else {
    throw BadValue("'" + text + "' is no address");
  }
  Made made(c, make_socket(c, storage.ss_family, SOCK_STREAM));
  const int error = connect_to(c.take(made.fd()).get(), reinterpret_cast<sockaddr*>(&storage), size);
  if (error != 0) throw OsError("connect", error, "connecting a descriptor to " + text);
  return made.keep();
}

// `place` is the socket's path, opened O_PATH: /proc/self/fd leads to it however long the path is.
int connected_unix(int place, const std::string& path, RebuildContext& c) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::string way = "/proc/self/fd/" + std::to_string(place);
  std::copy(way.begin(), way.end(), address.sun_path);
  int error = EPROTOTYPE;
  for (const int type : {SOCK_STREAM, SOCK_SEQPACKET, SOCK_DGRAM}) {
    Made made(c, make_socket(c, AF_UNIX, type));
    Batch b = c.batch();
    const size_t done = b.call(SYS_connect, made.fd(), b.in(&address, sizeof address), sizeof address);
    c.run(b);
    error = static_cast<int>(-b.result(done));
    if (error == 0) return made.keep();
    if (error != EPROTOTYPE) break;  // it is of another type
  }
  throw OsError("connect", error, "connecting a descriptor").at_path(path);
}

int opened(const Value& record, RebuildContext& c) {
  const std::string& path = record.at("path").as_string();
  const int flags = static_cast<int>(record.at("flags").as_int()) & kKept;
  const bool writes = (flags & O_ACCMODE) != O_RDONLY;
  struct stat st {};
  Made place(c, [&] {
    try {
      return c.open_in_pod(path, O_PATH);
    } catch (const OsError& e) {
      if (e.error() != ENOENT || !writes) throw;
      return -1;
    }
  }());
  if (place.fd() >= 0) {
    check(fstat(c.take(place.fd()).get(), &st), "fstat", "examining what takes a descriptor's place");
    if (S_ISSOCK(st.st_mode)) return connected_unix(place.fd(), path, c);
  }
  // A FIFO that nobody reads is an error, and none to wait for.
  const int create = place.fd() < 0 ? O_CREAT : 0;
  Made made(c, c.open_in_pod(path, (flags & ~O_APPEND) | create | O_NONBLOCK, 0600));
  const UniqueFd mine = c.take(made.fd());
  check(fstat(mine.get(), &st), "fstat", "examining what takes a descriptor's place");
  if (S_ISREG(st.st_mode)) {
    // What is in the file already stays.
    const Value* position = record.find("position");
    const int64_t at =
        position == nullptr ? 0 : std::min<int64_t>(position->as_int(0, INT64_MAX), st.st_size);
    check(lseek(mine.get(), at, SEEK_SET), "lseek", "positioning a file");
    if (position == nullptr && writes) set_status_flags(mine.get(), O_APPEND);
  }
  return made.keep();
}

int rebuild(const Value& record, RebuildContext& c) {
  if (const Value* own = record.find("own")) return c.push(static_cast<int>(own->as_int(0, INT32_MAX)));
  const int flags = static_cast<int>(record.at("flags").as_int()) & kKept;
  const Value* address = record.find("tcp");
  Made made(c, address != nullptr ? connected_tcp(*address, c) : opened(record, c));
  const UniqueFd mine = c.take(made.fd());
  set_status_flags(mine.get(), flags | (fcntl(mine.get(), F_GETFL) & O_APPEND));
  return made.keep();
}

}  // namespace

const Kind kGiven{"given", [](const Handle&, const CaptureContext&) { return false; },
                  [](Handle&, CaptureContext&) {}, rebuild};

}  // namespace virt
