// What a program is told of its sockets' addresses where they are not what it asked for: the peer of a connect(2) that was
// redirected, the port of a bind(2) that was remapped. No exceptions: used by virt-init.
#pragma once

#include <sys/socket.h>

#include <cstdint>
#include <mutex>
#include <unordered_map>

#include "interpose/call.h"
#include "interpose/listener.h"
#include "interpose/rules.h"

namespace virt {

class SocketNames {
 public:
  // `socket` was told to connect to `asked`, and is connected to something else. Any thread.
  void remember(int socket, const sockaddr_storage& asked);
  // Whether it has been remembered.
  bool knows(int socket);
  // Answers getsockname(2) and getpeername(2).
  void answer(const Listener& listener, const Call& call, const RuleSet& rules);

 private:
  bool asked_peer(int socket, sockaddr_storage* address);

  std::mutex mutex_;
  std::unordered_map<uint64_t, sockaddr_storage> peers_;  // by SO_COOKIE, which is never used again
};

}  // namespace virt
