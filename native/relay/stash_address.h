// Socket addresses as a stash's requests carry them. Header-only and free of exceptions: used by virt-init.
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>

#include <cstring>

namespace virt {

struct StashAddress {
  sockaddr_storage storage{};
  socklen_t size =
      0;  // 0: none. Of a unix path of 108 bytes it is 111, as getpeername(2) says it (unix(7), BUGS)

  [[nodiscard]] int family() const { return storage.ss_family; }
  [[nodiscard]] const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
  [[nodiscard]] sockaddr* get() { return reinterpret_cast<sockaddr*>(&storage); }
  [[nodiscard]] const sockaddr_in& four() const { return reinterpret_cast<const sockaddr_in&>(storage); }
  [[nodiscard]] sockaddr_in& four() { return reinterpret_cast<sockaddr_in&>(storage); }
  [[nodiscard]] const sockaddr_in6& six() const { return reinterpret_cast<const sockaddr_in6&>(storage); }
  [[nodiscard]] sockaddr_in6& six() { return reinterpret_cast<sockaddr_in6&>(storage); }
  // Of AF_INET and AF_INET6, in network byte order; it lies at the same place.
  [[nodiscard]] in_port_t port() const { return four().sin_port; }
};

// The functions below are for these two families.

inline StashAddress inet_address(const in_addr& address, in_port_t port) {
  StashAddress a;
  a.four().sin_family = AF_INET;
  a.four().sin_port = port;
  a.four().sin_addr = address;
  a.size = sizeof(sockaddr_in);
  return a;
}

inline StashAddress inet_address(const in6_addr& address, in_port_t port) {
  StashAddress a;
  a.six().sin6_family = AF_INET6;
  a.six().sin6_port = port;
  a.six().sin6_addr = address;
  a.size = sizeof(sockaddr_in6);
  return a;
}

// A v4-mapped address as the one of IPv4 that it stands for; others as they are.
inline StashAddress plain(const StashAddress& a) {
  if (a.family() != AF_INET6 || !IN6_IS_ADDR_V4MAPPED(&a.six().sin6_addr)) return a;
  in_addr address;
  std::memcpy(&address, &a.six().sin6_addr.s6_addr[12], sizeof address);
  return inet_address(address, a.port());
}

// The other way round: as a socket of IPv6 says it.
inline StashAddress mapped(const StashAddress& a) {
  if (a.family() != AF_INET) return a;
  in6_addr address{};
  address.s6_addr[10] = address.s6_addr[11] = 0xff;
  std::memcpy(&address.s6_addr[12], &a.four().sin_addr, sizeof a.four().sin_addr);
  return inet_address(address, a.port());
}

inline bool is_wildcard(const StashAddress& a) {
  const StashAddress p = plain(a);
  return p.family() == AF_INET ? p.four().sin_addr.s_addr == INADDR_ANY
                               : IN6_IS_ADDR_UNSPECIFIED(&p.six().sin6_addr);
}

// To more than one, or to this network: 0.0.0.0/8, 224.0.0.0/4 and above, ff00::/8.
inline bool is_one_host(const StashAddress& a) {
  const StashAddress p = plain(a);
  if (p.family() == AF_INET6) {
    return !IN6_IS_ADDR_MULTICAST(&p.six().sin6_addr) && !IN6_IS_ADDR_UNSPECIFIED(&p.six().sin6_addr);
  }
  const uint32_t first = ntohl(p.four().sin_addr.s_addr) >> 24;
  return first != 0 && first < 224;
}

inline bool is_inet(const StashAddress& a, int family) {
  return a.family() == family && ((family == AF_INET && a.size == sizeof(sockaddr_in)) ||
                                  (family == AF_INET6 && a.size == sizeof(sockaddr_in6)));
}

inline bool same_inet(const StashAddress& a, const StashAddress& b) {
  if (a.family() != b.family() || a.port() != b.port()) return false;
  if (a.family() == AF_INET) return a.four().sin_addr.s_addr == b.four().sin_addr.s_addr;
  return a.six().sin6_scope_id == b.six().sin6_scope_id &&
         std::memcmp(&a.six().sin6_addr, &b.six().sin6_addr, sizeof(in6_addr)) == 0;
}

}  // namespace virt
