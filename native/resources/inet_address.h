// Addresses of IPv4 and IPv6 (ip(7), ipv6(7)): as the kernel has them, as an image says them ({address, port, scope?}), and as
// people do.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <string>

#include "base/value.h"

namespace virt {

struct InetAddress {
  sockaddr_storage storage{};
  socklen_t size = 0;
  [[nodiscard]] const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
  [[nodiscard]] uint16_t port() const {
    if (storage.ss_family == AF_INET) return ntohs(reinterpret_cast<const sockaddr_in&>(storage).sin_port);
    if (storage.ss_family == AF_INET6) return ntohs(reinterpret_cast<const sockaddr_in6&>(storage).sin6_port);
    return 0;
  }
  [[nodiscard]] std::string bytes() const { return {reinterpret_cast<const char*>(&storage), size}; }
};

// "10.0.0.9:80", "[fd00::1]:80".
std::string show(const InetAddress& address);
Value pack_inet(const InetAddress& address);
// Throws BadValue if it is none of this family.
InetAddress unpack_inet(const Value& value, int family);
// {address, port} of either family, as the kernel has it.
std::string packed_inet(const Value& value);

}  // namespace virt
