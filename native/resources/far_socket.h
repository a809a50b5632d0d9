// What of a socket's record is needed to have it on another host, with its other end held where it was (init/far_sockets.h).
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>

#include "base/value.h"

namespace virt {

// Sockets that lead through a holder on another host: which of the pod's relays, which channel. Those that the program has
// accepted are known by their other end, which is a relay's.
struct FarWays {
  using Way = std::pair<int, uint32_t>;
  std::map<uint64_t, Way> by_inode, by_peer;  // by_peer: of a unix socket
  std::map<std::string, Way> by_addresses;    // its own and its peer's, of TCP
  // Nothing if it is none. `peer`: the inode of a unix socket's other end, or 0.
  [[nodiscard]] const Way* of(int fd, uint64_t inode, uint64_t peer) const;
};

struct FarSocket {
  int family = 0, type = 0;
  bool v6_only = false;
  std::string local, peer;  // sockaddr; empty: none
};

// Of an inet-socket or unix-socket. Throws BadValue.
FarSocket far_socket(const Value& record);
// Where a listening one is reached from inside its pod: as its address, but the loopback for any. Throws BadValue.
std::string reached_at(const Value& record);
// What waits in a connection's queue, without taking it.
std::string unread_of(int fd);
// Whether what was written to a connection has left its queue: it is with the relay then.
bool has_left(int fd);
// Gives the program's end, of which we have a copy, the options and state it had.
void furnish_far_socket(const Value& record, int fd);

FarSocket far_inet_socket(const Value& record);  // inet_socket.cc
FarSocket far_unix_socket(const Value& record);  // unix_socket.cc

}  // namespace virt
