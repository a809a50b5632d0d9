#include "engine/control_client.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/error.h"
#include "sys/message.h"

namespace virt {

using protocol::FrameHeader;
using protocol::Type;

UniqueFd ControlClient::connect(const std::string& path) {
  struct stat st {};
  if (lstat(path.c_str(), &st) != 0) {
    throw OsError("ERR_POD_GONE", "lstat", errno, "finding the pod's control socket").at_path(path);
  }
  const std::string directory = path.substr(0, path.rfind('/'));
  struct stat dir {};
  if (stat(directory.c_str(), &dir) != 0)
    throw OsError("stat", errno, "examining the socket directory").at_path(directory);
  if (!S_ISSOCK(st.st_mode) || st.st_uid != geteuid() || dir.st_uid != geteuid() ||
      (dir.st_mode & 077) != 0) {
    throw OsError("ERR_UNSAFE_PATH", "connect", EPERM,
                  "the control socket or its directory is not ours alone")
        .at_path(path);
  }
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path)
    throw OsError("connect", ENAMETOOLONG, "connecting to a pod").at_path(path);
  std::memcpy(address.sun_path, path.data(), path.size());
  UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd) throw OsError("socket", errno, "connecting to a pod");
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    const bool gone = errno == ECONNREFUSED || errno == ENOENT;
    throw OsError(gone ? "ERR_POD_GONE" : "ERR_SYSCALL", "connect", errno, "connecting to a pod")
        .at_path(path);
  }
  return fd;
}

pid_t ControlClient::peer_pid() const {
  ucred peer{};
  socklen_t size = sizeof peer;
  check(getsockopt(fd_.get(), SOL_SOCKET, SO_PEERCRED, &peer, &size), "getsockopt",
        "asking who the pod's init is");
  return peer.pid;
}

ControlClient::Incoming ControlClient::receive() {
  Incoming in;
  UniqueFd fds[kMaxPassedFds];
  size_t count = 0;
  int error = receive_all(fd_.get(), &in.header, sizeof in.header, fds, &count);
  if (error == 0 && in.header.size > protocol::kMostFrameBytes) error = -EPROTO;
  if (error == 0) {
    in.body.payload.resize(in.header.size);
    error = receive_all(fd_.get(), in.body.payload.data(), in.header.size, fds, &count);
  }
  if (error == -EPIPE || error == -ECONNRESET)
    throw OsError("ERR_POD_GONE", "recvmsg", EPIPE, "the pod's init has ended");
  if (error != 0) throw OsError("recvmsg", -error, "hearing from the pod's init");
  for (size_t i = 0; i < count; ++i) in.body.fds.push_back(std::move(fds[i]));
  return in;
}

ControlClient::Reply ControlClient::call(Type type, std::string_view payload, const char* doing,
                                         const std::vector<int>& fds, std::string* cause) {
  FrameHeader h;
  h.size = static_cast<uint32_t>(payload.size());
  h.type = static_cast<uint16_t>(type);
  h.number = next_++;
  std::string bytes(reinterpret_cast<const char*>(&h), sizeof h);
  bytes += payload;
  const int error = send_with_fds(fd_.get(), bytes.data(), bytes.size(), fds.data(), fds.size());
  if (error == -EPIPE || error == -ECONNRESET)
    throw OsError("ERR_POD_GONE", "sendmsg", EPIPE, "the pod's init has ended");
  if (error != 0) throw OsError("sendmsg", -error, doing);
  for (;;) {
    Incoming in = receive();
    if (in.header.type == static_cast<uint16_t>(Type::kFailed)) throw_failure(in.body.payload);
    if (in.header.number != h.number) continue;  // an event, or the reply to somebody else's question
    protocol::Reader r(in.body.payload);
    const auto status = r.number<int32_t>();
    if (!r.ok()) throw OsError("recvmsg", EPROTO, doing);
    if (status != 0) {
      if (cause != nullptr) *cause = r.rest();
      throw OsError("init", -status, doing);
    }
    in.body.payload = std::string(r.rest());
    return std::move(in.body);
  }
}

protocol::Status ControlClient::hello() {
  protocol::Status status;
  if (!decode(call(Type::kHello, {}, "asking the pod's init how it is").payload, &status) ||
      status.version != protocol::kVersion) {
    throw OsError("ERR_POD_VERSION", "hello", 0, "the pod's init speaks another version of the protocol");
  }
  return status;
}

pid_t ControlClient::await_fork() {
  for (;;) {
    Incoming in = receive();
    if (in.header.type == static_cast<uint16_t>(Type::kFailed)) throw_failure(in.body.payload);
    if (in.header.type != static_cast<uint16_t>(Type::kForked)) continue;
    protocol::Reader r(in.body.payload);
    return static_cast<pid_t>(r.number<uint32_t>());
  }
}

UniqueFd take_from(pid_t host_pid, int fd, const char* doing) {
  UniqueFd pidfd(static_cast<int>(syscall(SYS_pidfd_open, host_pid, 0)));
  UniqueFd got(pidfd ? static_cast<int>(syscall(SYS_pidfd_getfd, pidfd.get(), fd, 0)) : -1);
  if (!got) throw OsError("pidfd_getfd", errno, doing);
  return got;
}

void throw_failure(std::string_view payload) {
  protocol::Reader r(payload);
  const auto error = r.number<int32_t>();
  const std::string what = r.text();
  const bool isolating = what.starts_with("isolating: ");
  throw OsError(!isolating        ? "ERR_LAUNCH"
                : error == ENOSYS ? "ERR_KERNEL_FEATURE"
                                  : "ERR_ISOLATION",
                "virt-init", error, r.ok() ? what : "making the pod");
}

}  // namespace virt
