// The kernel's own state of a TCP connection (tcp(7), TCP_REPAIR), read from one socket and given to another on the host that has
// its address then. Needs CAP_NET_ADMIN over the sockets' network namespace. The sockets are silent meanwhile (sys/tcp_silence.h): the
// peer finds the connection slow.
#pragma once

#include <string>

#include "base/value.h"
#include "resources/inet_address.h"
#include "sys/fd.h"
#include "sys/tcp_silence.h"

namespace virt {

// Whether we may, tried on a socket of the same network namespace that is nothing yet.
bool may_repair(const UniqueFd& fresh);
// Why the state of this connection cannot be taken along; empty: it can.
std::string repair_obstacle(int fd, int tcp_state);

// Of a connection that is silent, while nothing in the kernel is under way to it any more: reads it without changing it. {state,
// local, peer, sendSequence, receiveSequence, unacknowledged, unread, ended?, maxSegment, windowScales?, selective?, timestamp?, sendWindow …,
// realtimeMs}; null if it has ended.
Value try_read_connection(int fd);
// All segments that a filter let pass before now have been dealt with.
void await_silence();

// A silent socket in repair mode with the addresses and numbers of the connection, and nothing in its queues. `early`: its address may
// come to this host later.
UniqueFd make_connection(const Value& state, const Value& options, int family, bool early);
// What waited in its queues, and what of it was closed. From here on its timers run: for the last moment.
void fill_connection(const Value& state, const Value& options, int fd);
// What end_silence() is to give it, of its record's options.
SpokenOptions spoken_in(const Value& options);

}  // namespace virt
