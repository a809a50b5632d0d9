// The engine's end of a pod's control socket: one request, one reply, blocking. TypeScript speaks the same
// protocol for everything that needs no descriptors and no tracing (src/control).
#pragma once

#include <sys/types.h>

#include <string>
#include <string_view>
#include <vector>

#include "init/protocol.h"
#include "sys/fd.h"

namespace virt {

class ControlClient {
 public:
  explicit ControlClient(UniqueFd fd) : fd_(std::move(fd)) {}
  // Connects to the socket at `path`. Throws ERR_POD_GONE if nobody listens, ERR_UNSAFE_PATH if the socket or
  // its directory belongs to somebody else.
  static UniqueFd connect(const std::string& path);

  struct Reply {
    std::string payload;
    std::vector<UniqueFd> fds;
  };
  // Throws OsError with init's errno if the request was refused; what init said of the cause is in `cause`.
  Reply call(protocol::Type type, std::string_view payload, const char* doing,
             const std::vector<int>& fds = {}, std::string* cause = nullptr);
  // Throws ERR_POD_VERSION if the pod's init speaks another version of the protocol.
  protocol::Status hello();

  // The next event of a pod that is being made: kForked gives its pid, kFailed throws.
  pid_t await_fork();
  // The host pid of init, as the kernel knows who listens at the other end.
  [[nodiscard]] pid_t peer_pid() const;

 private:
  struct Incoming {
    protocol::FrameHeader header;
    Reply body;
  };
  Incoming receive();

  UniqueFd fd_;
  uint32_t next_ = 1;
};

// What init, or another process that we may trace, has as descriptor `fd`.
UniqueFd take_from(pid_t host_pid, int fd, const char* doing);

inline constexpr const char* kTakingTerminal = "taking the pod's terminal from init";

// Throws what a kFailed event says.
[[noreturn]] void throw_failure(std::string_view payload);

}  // namespace virt
