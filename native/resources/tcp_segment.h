// A TCP segment that this host sends to itself as if a connection's peer had: the one way to tell a socket in repair mode that
// its peer has ended the connection.
#pragma once

#include <cstdint>

#include "resources/inet_address.h"

namespace virt {

struct Segment {
  InetAddress from, to;
  uint32_t sequence = 0, acknowledged = 0;
  uint16_t window = 0;
};

// Sends the end of a stream (FIN) and waits until `fd`, whose address `to` is, has taken it. CAP_NET_RAW and CAP_NET_ADMIN.
void inject_end(const Segment& segment, int fd);

}  // namespace virt
