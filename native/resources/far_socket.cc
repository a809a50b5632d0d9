#include "resources/far_socket.h"

#include <linux/sockios.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>

#include "base/error.h"
#include "resources/rebuild_context.h"
#include "resources/socket_options.h"
#include "resources/unix_name.h"

namespace virt {

FarSocket far_socket(const Value& record) {
  return record.at("kind").as_string() == "unix-socket" ? far_unix_socket(record) : far_inet_socket(record);
}

std::string reached_at(const Value& record) {
  const FarSocket s = far_socket(record);
  sockaddr_storage address{};
  if (s.local.size() > sizeof address) throw BadValue("an address of a listening socket");
  std::memcpy(&address, s.local.data(), s.local.size());
  if (s.family == AF_UNIX) {
    const Value* path = record.find("path");
    if (path == nullptr) return s.local;
    // The name may be relative, or longer than an address takes.
    const auto [at, size] = unix_address(path->as_string());
    return {reinterpret_cast<const char*>(&at), size};
  }
  if (auto& four = reinterpret_cast<sockaddr_in&>(address);
      s.family == AF_INET && four.sin_addr.s_addr == htonl(INADDR_ANY)) {
    four.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  }
  if (auto& six = reinterpret_cast<sockaddr_in6&>(address);
      s.family == AF_INET6 && IN6_IS_ADDR_UNSPECIFIED(&six.sin6_addr)) {
    six.sin6_addr = in6addr_loopback;
  }
  return {reinterpret_cast<const char*>(&address), s.local.size()};
}

const FarWays::Way* FarWays::of(int fd, uint64_t inode, uint64_t peer) const {
  if (const auto at = by_inode.find(inode); at != by_inode.end()) return &at->second;
  if (peer != 0) {
    const auto at = by_peer.find(peer);
    return at == by_peer.end() ? nullptr : &at->second;
  }
  if (by_addresses.empty()) return nullptr;
  std::string both;
  for (const auto get : {getsockname, getpeername}) {
    sockaddr_storage address{};
    socklen_t size = sizeof address;
    if (get(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0) return nullptr;
    both.append(reinterpret_cast<const char*>(&address), size);
  }
  const auto at = by_addresses.find(both);
  return at == by_addresses.end() ? nullptr : &at->second;
}

std::string unread_of(int fd) {
  int waiting = 0;
  if (ioctl(fd, FIONREAD, &waiting) != 0 || waiting <= 0) return {};
  std::string bytes(static_cast<size_t>(waiting), '\0');
  const ssize_t n = recv(fd, bytes.data(), bytes.size(), MSG_PEEK | MSG_DONTWAIT);
  if (n != waiting) throw OsError("recv", n < 0 ? errno : EIO, "looking into a connection's queue");
  return bytes;
}

bool has_left(int fd) {
  int waiting = 0;
  return ioctl(fd, SIOCOUTQ, &waiting) != 0 || waiting == 0;
}

void furnish_far_socket(const Value& record, int fd) {
  set_options(fd, record.at("options"), OptionsWhen::late);
  set_options(fd, record.at("options"), OptionsWhen::after);
  constexpr int64_t kSent = 2;
  if ((record.get_int("shutdown", 0) & kSent) != 0) shutdown(fd, SHUT_WR);
  set_status_flags(fd, static_cast<int>(record.at("flags").as_int()));
}

}  // namespace virt
