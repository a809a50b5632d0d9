#include "resources/far_socket.h"

#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <cerrno>

#include "base/error.h"
#include "resources/rebuild_context.h"
#include "resources/socket_options.h"

namespace virt {

FarSocket far_socket(const Value& record) {
  return record.at("kind").as_string() == "unix-socket" ? far_unix_socket(record) : far_inet_socket(record);
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
