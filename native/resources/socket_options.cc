#include "resources/socket_options.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <poll.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <iterator>

#include "base/error.h"
#include "sys/fd.h"

#ifndef UDP_NO_CHECK6_TX
#define UDP_NO_CHECK6_TX 101
#define UDP_NO_CHECK6_RX 102
#endif
#ifndef IP_LOCAL_PORT_RANGE
#define IP_LOCAL_PORT_RANGE 51
#endif
#ifndef SO_BUF_LOCK
#define SO_BUF_LOCK 72
#endif

namespace virt {
namespace {

struct Option {
  int family;  // 0: any
  int type;    // 0: any
  int level, name;
  bool before_bind;
};

constexpr Option kOptions[] = {
    {0, 0, SOL_SOCKET, SO_REUSEADDR, true},
    {0, 0, SOL_SOCKET, SO_REUSEPORT, true},
    {AF_INET6, 0, IPPROTO_IPV6, IPV6_V6ONLY, true},
    {AF_INET, 0, IPPROTO_IP, IP_FREEBIND, true},
    {AF_INET6, 0, IPPROTO_IP, IP_FREEBIND, true},
    {AF_INET6, 0, IPPROTO_IPV6, IPV6_FREEBIND, true},
    {0, 0, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, true},
    {0, 0, IPPROTO_IP, IP_LOCAL_PORT_RANGE, true},
    {0, SOCK_STREAM, IPPROTO_TCP, TCP_MAXSEG, true},
    {0, 0, SOL_SOCKET, SO_SNDBUF, true},
    {0, 0, SOL_SOCKET, SO_RCVBUF, true},
    {0, 0, SOL_SOCKET, SO_KEEPALIVE, false},
    {0, 0, SOL_SOCKET, SO_BROADCAST, false},
    {0, 0, SOL_SOCKET, SO_OOBINLINE, false},
    {0, 0, SOL_SOCKET, SO_LINGER, false},
    {0, 0, SOL_SOCKET, SO_RCVTIMEO, false},
    {0, 0, SOL_SOCKET, SO_SNDTIMEO, false},
    {0, 0, SOL_SOCKET, SO_RCVLOWAT, false},
    {0, 0, SOL_SOCKET, SO_PRIORITY, false},
    {0, 0, SOL_SOCKET, SO_MARK, false},
    {0, 0, SOL_SOCKET, SO_TIMESTAMP, false},
    {0, 0, SOL_SOCKET, SO_TIMESTAMPNS, false},
    {0, 0, SOL_SOCKET, SO_RXQ_OVFL, false},
    {0, 0, SOL_SOCKET, SO_DONTROUTE, false},
    {0, 0, SOL_SOCKET, SO_NO_CHECK, false},
    {0, 0, SOL_SOCKET, SO_ZEROCOPY, false},
    {0, 0, SOL_SOCKET, SO_INCOMING_CPU, false},
    {AF_UNIX, 0, SOL_SOCKET, SO_PASSCRED, false},
    {AF_UNIX, 0, SOL_SOCKET, SO_PASSSEC, false},
    {AF_UNIX, 0, SOL_SOCKET, SO_PEEK_OFF, false},
    {0, SOCK_STREAM, IPPROTO_TCP, TCP_NODELAY, false},
    {0, SOCK_STREAM, IPPROTO_TCP, TCP_CORK, false},
    {0, SOCK_STREAM, IPPROTO_TCP, TCP_KEEPIDLE, false},
    {0, SOCK_STREAM, IPPROTO_TCP, TCP_KEEPINTVL, false},
    {0, SOCK_STREAM, IPPROTO_TCP, TCP_KEEPCNT, false},
    {0, SOCK_STREAM, IPPROTO_TCP, TCP_SYNCNT, false},
    {0, SOCK_STREAM, IPPROTO_TCP, TCP_LINGER2, false},
    {0, SOCK_STREAM, IPPROTO_TCP, TCP_DEFER_ACCEPT, false},
    {0, SOCK_STREAM, IPPROTO_TCP, TCP_WINDOW_CLAMP, false},
    {0, SOCK_STREAM, IPPROTO_TCP, TCP_USER_TIMEOUT, false},
    {0, SOCK_STREAM, IPPROTO_TCP, TCP_FASTOPEN, false},
    {0, SOCK_STREAM, IPPROTO_TCP, TCP_CONGESTION, false},
    {0, SOCK_STREAM, IPPROTO_TCP, TCP_NOTSENT_LOWAT, false},
    {0, SOCK_STREAM, IPPROTO_TCP, TCP_THIN_LINEAR_TIMEOUTS, false},
    {0, SOCK_STREAM, IPPROTO_TCP, TCP_SAVE_SYN, false},
    {0, SOCK_STREAM, IPPROTO_TCP, TCP_FASTOPEN_CONNECT, false},
    {0, SOCK_STREAM, IPPROTO_TCP, TCP_FASTOPEN_NO_COOKIE, false},
    {0, SOCK_STREAM, IPPROTO_TCP, TCP_INQ, false},
    {0, SOCK_DGRAM, IPPROTO_UDP, UDP_CORK, false},
    {0, SOCK_DGRAM, IPPROTO_UDP, UDP_SEGMENT, false},
    {0, SOCK_DGRAM, IPPROTO_UDP, UDP_GRO, false},
    {0, SOCK_DGRAM, IPPROTO_UDP, UDP_NO_CHECK6_TX, false},
    {0, SOCK_DGRAM, IPPROTO_UDP, UDP_NO_CHECK6_RX, false},
    {0, 0, IPPROTO_IP, IP_RECVTTL, false},
    {0, 0, IPPROTO_IP, IP_RECVTOS, false},
    {0, 0, IPPROTO_IP, IP_RECVORIGDSTADDR, false},
    {0, 0, IPPROTO_IP, IP_MINTTL, false},
    {AF_INET, 0, IPPROTO_IP, IP_MULTICAST_ALL, false},
    {AF_INET, 0, IPPROTO_IP, IP_TOS, false},
    {AF_INET, 0, IPPROTO_IP, IP_TTL, false},
    {AF_INET, 0, IPPROTO_IP, IP_PKTINFO, false},
    {AF_INET, 0, IPPROTO_IP, IP_RECVERR, false},
    {AF_INET, 0, IPPROTO_IP, IP_MTU_DISCOVER, false},
    {AF_INET, SOCK_DGRAM, IPPROTO_IP, IP_MULTICAST_TTL, false},
    {AF_INET, SOCK_DGRAM, IPPROTO_IP, IP_MULTICAST_LOOP, false},
    {AF_INET6, 0, IPPROTO_IPV6, IPV6_UNICAST_HOPS, false},
    {AF_INET6, 0, IPPROTO_IPV6, IPV6_TCLASS, false},
    {AF_INET6, 0, IPPROTO_IPV6, IPV6_RECVPKTINFO, false},
    {AF_INET6, 0, IPPROTO_IPV6, IPV6_RECVERR, false},
    {AF_INET6, 0, IPPROTO_IPV6, IPV6_RECVHOPLIMIT, false},
    {AF_INET6, 0, IPPROTO_IPV6, IPV6_RECVTCLASS, false},
    {AF_INET6, 0, IPPROTO_IPV6, IPV6_MTU_DISCOVER, false},
    {AF_INET6, 0, IPPROTO_IPV6, IPV6_DONTFRAG, false},
    {AF_INET6, SOCK_DGRAM, IPPROTO_IPV6, IPV6_MULTICAST_HOPS, false},
    {AF_INET6, 0, IPPROTO_IPV6, IPV6_MULTICAST_LOOP, false},
    {AF_INET6, 0, IPPROTO_IPV6, IPV6_MULTICAST_ALL, false},
};

constexpr int kSendLocked = 1, kReceiveLocked = 2;  // SOCK_SNDBUF_LOCK, SOCK_RCVBUF_LOCK

int int_option(int fd, int name) {
  int value = 0;
  socklen_t size = sizeof value;
  check(getsockopt(fd, SOL_SOCKET, name, &value, &size), "getsockopt", "examining a socket");
  return value;
}

// Empty: this socket does not have the option.
std::string get(int fd, const Option& o) {
  std::string value(64, '\0');
  auto size = static_cast<socklen_t>(value.size());
  if (getsockopt(fd, o.level, o.name, value.data(), &size) != 0) return {};
  value.resize(size);
  return value;
}

bool is_buffer(const Option& o) {
  return o.level == SOL_SOCKET && (o.name == SO_SNDBUF || o.name == SO_RCVBUF);
}

// Then the greatest segment is what both sides agreed on, and can be set no more (tcp(7)).
bool is_or_was_connected(int fd) {
  pollfd p{fd, POLLRDHUP, 0};
  if (poll(&p, 1, 0) > 0 && (p.revents & POLLRDHUP) != 0) return true;
  sockaddr_storage peer;
  socklen_t size = sizeof peer;
  return getpeername(fd, reinterpret_cast<sockaddr*>(&peer), &size) == 0;
}

struct SocketSort {
  int family, type, protocol;
  explicit SocketSort(int fd)
      : family(int_option(fd, SO_DOMAIN)),
        type(int_option(fd, SO_TYPE)),
        protocol(int_option(fd, SO_PROTOCOL)) {}

  [[nodiscard]] bool may_have(const Option& o) const {
    if ((o.family != 0 && o.family != family) || (o.type != 0 && o.type != type)) return false;
    if (family == AF_UNIX && o.level != SOL_SOCKET) return false;
    if (o.level == IPPROTO_TCP && protocol != IPPROTO_TCP) return false;
    return o.level != IPPROTO_UDP || protocol == IPPROTO_UDP;
  }
};

}  // namespace

OptionValues option_values(int fd) {
  const SocketSort sort(fd);
  OptionValues values;
  for (const Option& o : kOptions) values.push_back(sort.may_have(o) ? get(fd, o) : std::string());
  return values;
}

Value changed_options(int fd, const OptionValues& fresh) {
  const SocketSort sort(fd);
  // TCP sizes its buffers itself; only a size the program has set is to be set again (SO_BUF_LOCK, 5.14).
  int locked = kSendLocked | kReceiveLocked;
  socklen_t size = sizeof locked;
  const bool knows_locks = getsockopt(fd, SOL_SOCKET, SO_BUF_LOCK, &locked, &size) == 0;
  Value out = Value::list();
  for (size_t i = 0; i < std::size(kOptions); ++i) {
    const Option& o = kOptions[i];
    if (!sort.may_have(o)) continue;
    if (is_buffer(o)) {
      if (knows_locks && (locked & (o.name == SO_SNDBUF ? kSendLocked : kReceiveLocked)) == 0) continue;
      if (!knows_locks && sort.type == SOCK_STREAM && sort.family != AF_UNIX) continue;
    }
    if (o.level == IPPROTO_TCP && o.name == TCP_MAXSEG && is_or_was_connected(fd)) continue;
    const std::string now = get(fd, o);
    if (now.empty() || now == fresh.at(i)) continue;
    Value option = Value::list();
    option.push(o.level);
    option.push(o.name);
    option.push(Value::bytes(now.data(), now.size()));
    out.push(std::move(option));
  }
  return out;
}

bool has_filter(int fd) {
  // Without room it says how many instructions there are; of a filter that is not of the old kind it says
  // nothing.
  socklen_t size = 0;
  return getsockopt(fd, SOL_SOCKET, SO_GET_FILTER, nullptr, &size) == 0 ? size > 0 : errno == EACCES;
}

void set_options(int fd, const Value& options, OptionsWhen when) {
  for (const Value& option : options.as_list()) {
    const auto& parts = option.as_list();
    if (parts.size() != 3) throw BadValue("a socket option that is no triple");
    const auto level = static_cast<int>(parts[0].as_int()), name = static_cast<int>(parts[1].as_int());
    std::string value = parts[2].as_bytes();
    const Option* known = nullptr;
    for (const Option& o : kOptions) {
      if (o.level == level && o.name == name) known = &o;
    }
    if (known == nullptr) throw BadValue("a socket option that is not in our table");
    if (known->before_bind != (when != OptionsWhen::after)) continue;
    // It was made with it.
    if (when == OptionsWhen::late && level == IPPROTO_IPV6 && name == IPV6_V6ONLY) continue;
    if (is_buffer(*known) && value.size() == sizeof(int)) {
      // The kernel gives back twice what was set (socket(7)).
      int bytes;
      std::memcpy(&bytes, value.data(), sizeof bytes);
      bytes /= 2;
      std::memcpy(value.data(), &bytes, sizeof bytes);
    }
    if (setsockopt(fd, level, name, value.data(), static_cast<socklen_t>(value.size())) != 0) {
      throw OsError("setsockopt", errno,
                    "setting socket option " + std::to_string(level) + "/" + std::to_string(name));
    }
  }
}

}  // namespace virt
