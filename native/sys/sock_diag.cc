#include "sys/sock_diag.h"

#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <vector>

#include "base/error.h"

namespace virt {
namespace {

UnixSocketInfo parse(const nlmsghdr* header) {
  const auto* m = static_cast<const unix_diag_msg*>(NLMSG_DATA(header));
  UnixSocketInfo info;
  info.inode = m->udiag_ino;
  info.type = m->udiag_type;
  info.state = m->udiag_state;
  auto length = static_cast<int>(header->nlmsg_len - NLMSG_LENGTH(sizeof *m));
  for (auto* a = reinterpret_cast<const rtattr*>(m + 1); RTA_OK(a, length); a = RTA_NEXT(a, length)) {
    const void* data = RTA_DATA(a);
    const size_t size = RTA_PAYLOAD(a);
    if (a->rta_type == UNIX_DIAG_PEER && size >= 4) {
      uint32_t peer;
      std::memcpy(&peer, data, 4);
      info.peer = peer;
      info.has_peer = true;
    } else if (a->rta_type == UNIX_DIAG_RQLEN && size >= sizeof(unix_diag_rqlen)) {
      unix_diag_rqlen q;
      std::memcpy(&q, data, sizeof q);
      info.receive_queue = q.udiag_rqueue;
      info.write_queue = q.udiag_wqueue;
    } else if (a->rta_type == UNIX_DIAG_SHUTDOWN && size >= 1) {
      std::memcpy(&info.shutdown, data, 1);
    }
  }
  return info;
}

}  // namespace

std::map<uint64_t, UnixSocketInfo> list_unix_sockets(const UniqueFd& diag) {
  struct {
    nlmsghdr header;
    unix_diag_req request;
  } ask{};
  ask.header.nlmsg_len = sizeof ask;
  ask.header.nlmsg_type = SOCK_DIAG_BY_FAMILY;
  ask.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
  ask.request.sdiag_family = AF_UNIX;
  ask.request.udiag_states = ~0U;
  ask.request.udiag_show = UDIAG_SHOW_PEER | UDIAG_SHOW_RQLEN;
  check(send(diag.get(), &ask, sizeof ask, 0), "send", "asking for the unix sockets");

  std::map<uint64_t, UnixSocketInfo> all;
  alignas(nlmsghdr) std::vector<char> buffer(64 << 10);
  for (;;) {
    const ssize_t n = recv(diag.get(), buffer.data(), buffer.size(), 0);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) throw OsError("recv", n < 0 ? errno : EPIPE, "reading the list of unix sockets");
    auto left = static_cast<unsigned>(n);
    for (auto* h = reinterpret_cast<const nlmsghdr*>(buffer.data()); NLMSG_OK(h, left);
         h = NLMSG_NEXT(h, left)) {
      if (h->nlmsg_type == NLMSG_DONE) return all;
      if (h->nlmsg_type == NLMSG_ERROR) {
        throw OsError("sock_diag", EPROTO, "reading the list of unix sockets");
      }
      const UnixSocketInfo info = parse(h);
      all[info.inode] = info;
    }
  }
}

}  // namespace virt
