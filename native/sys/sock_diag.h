// What the kernel knows of all unix sockets of a network namespace: sock_diag(7) over netlink.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "sys/fd.h"

namespace virt {

struct UnixSocketInfo {
  uint64_t inode = 0, peer = 0;  // peer 0: none, or closed
  int type = 0, state = 0;  // SOCK_*, TCP_* as the kernel abuses them (1 established, 7 closed, 10 listening)
  uint32_t receive_queue = 0, write_queue = 0;  // listening: waiting connections, backlog
  uint8_t shutdown = 0;
  bool has_peer = false;  // it had one, even if that is closed now
};

// All unix sockets of a network namespace, by inode. `diag` is a socket made there: AF_NETLINK, SOCK_RAW,
// NETLINK_SOCK_DIAG.
std::map<uint64_t, UnixSocketInfo> list_unix_sockets(const UniqueFd& diag);

}  // namespace virt
