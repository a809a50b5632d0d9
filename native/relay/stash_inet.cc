#include "relay/stash_inet.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>

#include <cerrno>
#include <cstring>

namespace virt {
namespace {

// Both ends are on this machine; but it may be a busy one.
constexpr int kPatienceMs = 5000;

#ifndef IPV6_FREEBIND
constexpr int IPV6_FREEBIND = 78;
#endif

bool valid(const StashAddress& a, int family) {
  return is_inet(a, family) && a.port() != 0 && is_one_host(a);
}

bool set(const UniqueFd& fd, int level, int name, int value) {
  return setsockopt(fd.get(), level, name, &value, sizeof value) == 0;
}

// Binds to an address that no interface has. The relay's sockets share theirs with one another. The program's end is
// bound past all others (TCP_REPAIR, which sets SK_FORCE_REUSE in the kernel): they may have SO_REUSEADDR off by now, as
// a program likes it.
int bind_anywhere(const UniqueFd& fd, const StashAddress& address, bool past_others) {
  const bool v6 = address.family() == AF_INET6;
  if (!set(fd, v6 ? IPPROTO_IPV6 : IPPROTO_IP, v6 ? IPV6_FREEBIND : IP_FREEBIND, 1)) return errno;
  const bool forced = past_others && set(fd, IPPROTO_TCP, TCP_REPAIR, 1);
  if (!forced && !set(fd, SOL_SOCKET, SO_REUSEADDR, 1)) return errno;
  if (bind(fd.get(), address.get(), address.size) != 0) return errno;
  // Without a window probe: there is no connection yet. It leaves SO_REUSEADDR off.
  if (forced && !set(fd, IPPROTO_TCP, TCP_REPAIR, -1)) return errno;
  if (!set(fd, v6 ? IPPROTO_IPV6 : IPPROTO_IP, v6 ? IPV6_FREEBIND : IP_FREEBIND, 0)) return errno;
  return 0;
}

bool ready(const UniqueFd& fd, short events) {
  pollfd p{fd.get(), events, 0};
  int got;
  while ((got = poll(&p, 1, kPatienceMs)) < 0 && errno == EINTR) {
  }
  if (got == 0) errno = ETIMEDOUT;
  return got > 0;
}

int set_blocking(const UniqueFd& fd, bool blocking) {
  return fcntl(fd.get(), F_SETFL, blocking ? 0 : O_NONBLOCK) == 0 ? 0 : errno;
}

int connect_soon(const UniqueFd& fd, const StashAddress& peer) {
  if (connect(fd.get(), peer.get(), peer.size) == 0) return 0;
  if (errno != EINPROGRESS) return errno;
  if (!ready(fd, POLLOUT)) return errno;
  int error = 0;
  socklen_t size = sizeof error;
  return getsockopt(fd.get(), SOL_SOCKET, SO_ERROR, &error, &size) == 0 ? error : errno;
}

// The connection that comes from `from`. A program can reach the listener too, with a socket that it had from here
// before and disconnected (connect(2), AF_UNSPEC): such are turned away.
int accept_from(const UniqueFd& listener, const StashAddress& from, UniqueFd* accepted) {
  for (int others = 0; others < 64; ++others) {
    if (!ready(listener, POLLIN)) return errno;
    StashAddress who;
    who.size = sizeof who.storage;
    accepted->reset(accept4(listener.get(), who.get(), &who.size, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!*accepted && errno != ECONNABORTED && errno != EAGAIN) return errno;
    if (*accepted && same_inet(who, from)) return 0;
  }
  accepted->reset();
  return ETIMEDOUT;
}

UniqueFd make(int family, int type) {
  return UniqueFd(socket(family, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
}

int listen_on(const StashAddress& address, StashRoom& room) {
  if (room.listener && same_inet(room.listens, address)) return 0;
  room.listener = make(address.family(), SOCK_STREAM);
  if (!room.listener) return errno;
  room.listens = address;
  int error = bind_anywhere(room.listener, address, false);
  if (error == 0 && listen(room.listener.get(), 64) != 0) error = errno;
  if (error != 0) room.listener.reset();
  return error;
}

int tcp_pair(const StashRequest& request, StashRoom& room, StashPair* made) {
  const StashAddress local = plain(request.local), peer = plain(request.peer);
  if (same_inet(local, peer)) return EOPNOTSUPP;
  if (const int error = listen_on(peer, room); error != 0) return error;
  int error = bind_anywhere(made->program, request.local, true);
  if (error == 0) error = connect_soon(made->program, request.peer);
  if (error == 0) error = accept_from(room.listener, local, &made->relay);
  if (error != 0) room.listener.reset();
  return error;
}

int udp_pair(const StashRequest& request, StashPair* made) {
  const StashAddress local = plain(request.local), peer = plain(request.peer);
  made->relay = make(peer.family(), SOCK_DGRAM);
  if (!made->relay) return errno;
  if (const int error = bind_anywhere(made->relay, peer, false); error != 0) return error;
  if (const int error = bind_anywhere(made->program, request.local, false); error != 0) return error;
  if (connect(made->program.get(), request.peer.get(), request.peer.size) != 0) return errno;
  return connect(made->relay.get(), local.get(), local.size) == 0 ? 0 : errno;
}

// The kernel says the interface's number with a link-local address, and takes only one that is there (ipv6(7)). The
// address must be the interface's own: with a local route alone, packets to it are those of the loopback device.
bool keep_scope(StashAddress& address, Rtnetlink& net) {
  if (address.family() != AF_INET6 || !IN6_IS_ADDR_LINKLOCAL(&address.six().sin6_addr)) return true;
  const auto device = static_cast<int>(address.six().sin6_scope_id);
  if (device == kLoopback) return true;
  if (device > 0 && net.make_device(device) == 0 && net.bring_up(device) == 0 &&
      net.add_address(AF_INET6, &address.six().sin6_addr, device) == 0) {
    return true;
  }
  address.six().sin6_scope_id = kLoopback;
  return false;
}

// Whether the kernel has understood the addresses as they were meant: 0.0.0.0, for one, becomes another.
bool as_wished(const StashRequest& request, const UniqueFd& program) {
  StashAddress local, peer;
  local.size = peer.size = sizeof local.storage;
  return getsockname(program.get(), local.get(), &local.size) == 0 &&
         getpeername(program.get(), peer.get(), &peer.size) == 0 && same_inet(local, request.local) &&
         same_inet(peer, request.peer);
}

}  // namespace

int inet_pair(const StashRequest& wanted, StashRoom& room, StashPair* made) {
  StashRequest request = wanted;
  if (!valid(request.local, request.family) || !valid(request.peer, request.family)) return EINVAL;
  if (request.type != SOCK_STREAM && request.type != SOCK_DGRAM) return ESOCKTNOSUPPORT;
  made->program = make(request.family, request.type);
  if (!made->program) return errno;
  if (request.family == AF_INET6) {
    if (!set(made->program, IPPROTO_IPV6, IPV6_V6ONLY, request.v6_only ? 1 : 0)) return errno;
    const bool kept = keep_scope(request.local, room.net);
    made->scope_kept = keep_scope(request.peer, room.net) && kept;
    // One of them may have failed: both are of one interface.
    if (!made->scope_kept) {
      for (StashAddress* a : {&request.local, &request.peer}) {
        if (IN6_IS_ADDR_LINKLOCAL(&a->six().sin6_addr)) a->six().sin6_scope_id = kLoopback;
      }
    }
  }
  int error = request.type == SOCK_STREAM ? tcp_pair(request, room, made) : udp_pair(request, made);
  if (error == 0 && !as_wished(request, made->program)) error = EINVAL;
  if (error == 0) error = set_blocking(made->program, true);
  return error;
}

}  // namespace virt
