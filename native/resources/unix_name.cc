#include "resources/unix_name.h"

#include <sys/stat.h>

#include <algorithm>
#include <cstddef>
#include <cstring>

#include "base/error.h"
#include "sys/file.h"

namespace virt {

std::string unix_name_from(const sockaddr_un& address, socklen_t size) {
  constexpr size_t kHead = offsetof(sockaddr_un, sun_path);
  if (size <= kHead) return {};
  std::string name(address.sun_path, std::min<size_t>(size - kHead, sizeof address.sun_path));
  if (name[0] != '\0') name.resize(std::min(name.size(), std::strlen(name.c_str())));
  return name;
}

std::string own_unix_name(int fd) {
  sockaddr_un a{};
  socklen_t size = sizeof a;
  check(getsockname(fd, reinterpret_cast<sockaddr*>(&a), &size), "getsockname", "examining a unix socket");
  return unix_name_from(a, size);
}

std::string peer_unix_name(int fd) {
  sockaddr_un a{};
  socklen_t size = sizeof a;
  if (getpeername(fd, reinterpret_cast<sockaddr*>(&a), &size) != 0) return {};
  return unix_name_from(a, size);
}

std::pair<sockaddr_un, socklen_t> unix_address(const std::string& name) {
  sockaddr_un a{};
  a.sun_family = AF_UNIX;
  if (name.size() > sizeof a.sun_path) throw BadValue("a unix socket name that is too long");
  std::memcpy(a.sun_path, name.data(), name.size());
  const bool path = !name.empty() && name[0] != '\0';
  return {a, static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + name.size() +
                                    (path && name.size() < sizeof a.sun_path ? 1 : 0))};
}

std::string socket_file_path(const std::string& name, const Handle& h, CaptureContext& c) {
  if (name[0] == '/') return name;
  const auto cwd = try_read_link(proc_path(h.host_pid, "cwd"));
  struct stat st {};
  if (!cwd || !c.stat_in_pod(*cwd + "/" + name, &st) || !S_ISSOCK(st.st_mode)) return {};
  return *cwd + "/" + name;
}

}  // namespace virt
