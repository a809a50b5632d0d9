// What of a socket's record is needed to have it on another host, with its other end held where it was (init/far_sockets.h).
#pragma once

#include <string>

#include "base/value.h"

namespace virt {

struct FarSocket {
  int family = 0, type = 0;
  bool v6_only = false;
  std::string local, peer;  // sockaddr; empty: none
};

// Of an inet-socket or unix-socket. Throws BadValue.
FarSocket far_socket(const Value& record);
// What waits in a connection's queue, without taking it.
std::string unread_of(int fd);
// Whether what was written to a connection has left its queue: it is with the relay then.
bool has_left(int fd);
// Gives the program's end, of which we have a copy, the options and state it had.
void furnish_far_socket(const Value& record, int fd);

FarSocket far_inet_socket(const Value& record);  // inet_socket.cc
FarSocket far_unix_socket(const Value& record);  // unix_socket.cc

}  // namespace virt
