#include "sys/tcp_silence.h"

#include <linux/filter.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <cerrno>
#include <climits>
#include <iterator>

namespace virt {
namespace {

int get(int fd, int level, int name, int* value) {
  socklen_t size = sizeof *value;
  return getsockopt(fd, level, name, value, &size) == 0 ? 0 : errno;
}

int set(int fd, int level, int name, int value) {
  return setsockopt(fd, level, name, &value, sizeof value) == 0 ? 0 : errno;
}

int first_error(int a, int b) { return a != 0 ? a : b; }

}  // namespace

int spoken_options(int fd, SpokenOptions* options) {
  int reuse = 0, alive = 0, timeout = 0;
  int error = get(fd, SOL_SOCKET, SO_REUSEADDR, &reuse);
  error = first_error(error, get(fd, SOL_SOCKET, SO_KEEPALIVE, &alive));
  error = first_error(error, get(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout));
  *options = {static_cast<uint32_t>(reuse), static_cast<uint32_t>(alive), static_cast<uint32_t>(timeout)};
  return error;
}

int silence(int fd) {
  sock_filter nothing[] = {BPF_STMT(BPF_RET | BPF_K, 0)};
  const sock_fprog program{static_cast<unsigned short>(std::size(nothing)), nothing};
  if (setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program) != 0) return errno;
  // A peer that is not answered would be reset by keepalive probes, and we would give up after some 15 minutes (tcp(7)).
  return first_error(set(fd, SOL_SOCKET, SO_KEEPALIVE, 0), set(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, INT_MAX));
}

int close_silently(int fd) { return set(fd, IPPROTO_TCP, TCP_REPAIR, TCP_REPAIR_ON); }

int leave_repair(int fd) {
  int on = 0;
  if (get(fd, IPPROTO_TCP, TCP_REPAIR, &on) != 0 || on == 0) return 0;
  return set(fd, IPPROTO_TCP, TCP_REPAIR, TCP_REPAIR_OFF_NO_WP);
}

int end_silence(int fd, const SpokenOptions& options) {
  // The filter first: what the peer says to the probe is to be heard.
  int error = set(fd, SOL_SOCKET, SO_DETACH_FILTER, 0);
  if (error == ENOENT) error = 0;  // there is none
  int on = 0;
  if (get(fd, IPPROTO_TCP, TCP_REPAIR, &on) == 0 && on != 0)
    error = first_error(error, set(fd, IPPROTO_TCP, TCP_REPAIR, TCP_REPAIR_OFF));
  error = first_error(error, set(fd, SOL_SOCKET, SO_REUSEADDR, static_cast<int>(options.reuse_address)));
  error = first_error(
      error, set(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, static_cast<int>(options.user_timeout_ms & INT_MAX)));
  return first_error(error, set(fd, SOL_SOCKET, SO_KEEPALIVE, static_cast<int>(options.keep_alive)));
}

}  // namespace virt
