#include "resources/far_socket.h"

#include <sys/socket.h>

#include "resources/rebuild_context.h"
#include "resources/socket_options.h"

namespace virt {

FarSocket far_socket(const Value& record) {
  return record.at("kind").as_string() == "unix-socket" ? far_unix_socket(record) : far_inet_socket(record);
}

void furnish_far_socket(const Value& record, int fd) {
  set_options(fd, record.at("options"), OptionsWhen::late);
  set_options(fd, record.at("options"), OptionsWhen::after);
  constexpr int64_t kSent = 2;
  if ((record.get_int("shutdown", 0) & kSent) != 0) shutdown(fd, SHUT_WR);
  set_status_flags(fd, static_cast<int>(record.at("flags").as_int()));
}

}  // namespace virt
