#include "interpose/address.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/un.h>

#include <cstddef>
#include <cstring>

namespace virt {

std::string address_text(const sockaddr_storage& a, socklen_t size, int* port) {
  char text[INET6_ADDRSTRLEN] = "";
  *port = -1;
  if (a.ss_family == AF_INET && size >= sizeof(sockaddr_in)) {
    const auto& in = reinterpret_cast<const sockaddr_in&>(a);
    inet_ntop(AF_INET, &in.sin_addr, text, sizeof text);
    *port = ntohs(in.sin_port);
    return text;
  }
  if (a.ss_family == AF_INET6 && size >= sizeof(sockaddr_in6)) {
    const auto& in = reinterpret_cast<const sockaddr_in6&>(a);
    inet_ntop(AF_INET6, &in.sin6_addr, text, sizeof text);
    *port = ntohs(in.sin6_port);
    return text;
  }
  if (a.ss_family == AF_UNIX && size > offsetof(sockaddr_un, sun_path)) {
    const auto& un = reinterpret_cast<const sockaddr_un&>(a);
    const size_t length = size - offsetof(sockaddr_un, sun_path);
    if (un.sun_path[0] != '\0') return std::string(un.sun_path, strnlen(un.sun_path, length));
    return "@" + std::string(un.sun_path + 1, length - 1);
  }
  return {};
}

}  // namespace virt
