// TCP and UDP sockets (tcp(7), udp(7), ip(7), ipv6(7)) that listen, are bound, or are nothing yet.
// Connections to outside are kept by the pod's init (CaptureContext::hold); elsewhere, or if the user wants it so, the program
// finds them reset, or made anew.
#include <fcntl.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

#include <cerrno>
#include <cstring>

#include "base/error.h"
#include "resources/capture_context.h"
#include "resources/far_socket.h"
#include "resources/inet_address.h"
#include "resources/kinds.h"
#include "resources/rebuild_context.h"
#include "resources/socket_options.h"
#include "resources/tcp_repair.h"
#include "sys/file.h"

namespace virt {
namespace {

constexpr int kSent = 2;  // of "shutdown": nothing more is sent (shutdown(2), SHUT_WR)

int int_option(int fd, int name) {
  int value = -1;
  socklen_t size = sizeof value;
  getsockopt(fd, SOL_SOCKET, name, &value, &size);
  return value;
}

std::optional<InetAddress> local_address(int fd) {
  InetAddress a;
  a.size = sizeof a.storage;
  if (getsockname(fd, reinterpret_cast<sockaddr*>(&a.storage), &a.size) != 0) return std::nullopt;
  return a;
}

std::optional<InetAddress> peer_address(int fd) {
  InetAddress a;
  a.size = sizeof a.storage;
  if (getpeername(fd, reinterpret_cast<sockaddr*>(&a.storage), &a.size) != 0) return std::nullopt;
  return a;
}

bool recognise(const Handle& h, const CaptureContext&) {
  if (!S_ISSOCK(h.st.st_mode)) return false;
  const int family = int_option(h.dup.get(), SO_DOMAIN);
  const int protocol = int_option(h.dup.get(), SO_PROTOCOL);
  return (family == AF_INET || family == AF_INET6) && (protocol == IPPROTO_TCP || protocol == IPPROTO_UDP);
}

// A connection that was reset, or has ended both ways: a new socket has shut down nothing (tcp(7), poll(2)).
bool was_connected(int fd) {
  pollfd p{fd, POLLRDHUP, 0};
  return poll(&p, 1, 0) > 0 && (p.revents & POLLRDHUP) != 0;
}

// Its program may not know yet that it is over, and why; asking would take the error from it.
void capture_dead(Handle& h, CaptureContext& c) {
  h.record.set("state", "connected");
  int waiting = 0;
  if (ioctl(h.dup.get(), SIOCINQ, &waiting) == 0 && waiting > 0) h.record.set("waiting", waiting);
  if (c.hold(h, HeldAs::connection)) return;
  h.record.set("state", "reset");
  if (waiting > 0 && (c.tcp_policy.otherwise == "hold" || c.tcp_policy.otherwise == "repair")) {
    c.block(h, "ERR_CONNECTION", "what was not read yet of a TCP connection that was reset",
            "try again when it is read, or let it be lost with --tcp close");
  }
}

// Init too must be able to: it is who ends the silence, or keeps it.
bool may_repair(CaptureContext& c) {
  if (!c.may_repair) {
    const auto ours = try_read_link("/proc/self/ns/user");
    c.may_repair = !c.own_network && ours && ours == try_read_link(proc_path(c.init_host_pid(), "ns/user")) &&
                   may_repair(c.make_socket(AF_INET, SOCK_STREAM, 0));
  }
  return *c.may_repair;
}

// What never leaves this host cannot go on elsewhere; what leads through a relay has no state of its own.
bool leaves_host(const Handle& h, const CaptureContext& c, const InetAddress& peer) {
  if (c.far.of(h.dup.get(), h.st.st_ino, 0) != nullptr) return false;
  const bool v6 = peer.storage.ss_family == AF_INET6;
  const auto& six = reinterpret_cast<const sockaddr_in6&>(peer.storage).sin6_addr;
  const in_addr_t four =
      ntohl(v6 ? six.s6_addr32[3] : reinterpret_cast<const sockaddr_in&>(peer.storage).sin_addr.s_addr);
  return v6 && !IN6_IS_ADDR_V4MAPPED(&six) ? !IN6_IS_ADDR_LOOPBACK(&six)
                                           : four >> IN_CLASSA_NSHIFT != IN_LOOPBACKNET;
}

void capture_repaired(Handle& h, CaptureContext& c, int tcp_state, const std::string& whom) {
  const char* hint = "keep it here with --tcp hold, or let the program find it reset with --tcp close";
  if (!c.holds) {
    c.block(h, "ERR_CONNECTION", "a TCP connection" + whom + ", whose state only one pod can have", hint);
  } else if (!c.may_repair || *c.may_repair) {  // else it was said already
    if (!may_repair(c)) {
      c.block(
          h, "ERR_NOT_PERMITTED",
          "a TCP connection" + whom +
              ": to take its state along (repair) needs CAP_NET_ADMIN over the host's network",
          "run the pod as root, without rules for isolation, or keep its connections here with --tcp hold");
    } else if (const std::string why = repair_obstacle(h.dup.get(), tcp_state); !why.empty()) {
      c.block(h, "ERR_CONNECTION", "a TCP connection" + whom + " " + why, hint);
    }
  }
  h.record.set("state", "connected");
  (void)c.hold(h, HeldAs::repair);
}

void capture_tcp(Handle& h, CaptureContext& c) {
  tcp_info info{};
  socklen_t size = sizeof info;
  check(getsockopt(h.dup.get(), IPPROTO_TCP, TCP_INFO, &info, &size), "getsockopt", "examining a TCP socket");
  if (info.tcpi_state == TCP_LISTEN) {
    h.record.set("state", "listening").set("backlog", static_cast<int64_t>(info.tcpi_sacked));
    if (info.tcpi_unacked > 0) h.record.set("waiting", static_cast<int64_t>(info.tcpi_unacked));
    if (!c.own_network && c.hold(h, HeldAs::listener)) return;
    if (info.tcpi_unacked > 0 && c.tcp_policy.otherwise != "close") {
      c.block(h, "ERR_BACKLOG",
              std::to_string(info.tcpi_unacked) + " connections wait in the backlog of a listening socket",
              "try again when the program has accepted them, or let them be reset with --tcp close");
    }
    return;
  }
  if (info.tcpi_state == TCP_CLOSE) {
    if (was_connected(h.dup.get())) return capture_dead(h, c);
    h.record.set("state", "closed");
    return;
  }
  // By the program: tcp(7) has no other way to ask.
  if (info.tcpi_state == TCP_FIN_WAIT1 || info.tcpi_state == TCP_FIN_WAIT2 ||
      info.tcpi_state == TCP_CLOSING || info.tcpi_state == TCP_LAST_ACK) {
    h.record.set("shutdown", kSent);
  }
  const auto peer = peer_address(h.dup.get());
  const std::string whom = peer ? " to " + show(*peer) : "";
  if (peer) h.record.set("peer", pack_inet(*peer));
  const Value* address = h.record.find("peer");
  const std::string& policy =
      c.tcp_policy.of(address == nullptr ? "" : address->at("address").as_string(), peer ? peer->port() : 0);
  if (policy == "repair" && peer && leaves_host(h, c, *peer))
    return capture_repaired(h, c, info.tcpi_state, whom);
  if (policy == "reconnect" && peer) {
    h.record.set("state", "reconnect");
    return;
  }
  h.record.set("state", "connected");
  const bool wanted = policy == "hold" || policy == "repair";
  if (wanted && c.hold(h, HeldAs::connection)) return;
  h.record.set("state", "reset");
  if (!wanted) {
    c.accepted.push_back("closed the TCP connection" + whom +
                         (h.uses.empty() ? ""
                                         : " of pid " + std::to_string(h.uses[0].pid) + ", fd " +
                                               std::to_string(h.uses[0].fd)));
    return;
  }
  c.block(h, "ERR_CONNECTION", "a TCP connection" + whom,
          "end the connection first, or let the program find it reset with --tcp close");
}

void capture_udp(Handle& h, CaptureContext& c) {
  int waiting = 0;
  h.record.set("state", "closed");
  if (ioctl(h.dup.get(), SIOCINQ, &waiting) == 0 && waiting > 0) h.record.set("waiting", waiting);
  if ((c.own_network || !c.hold(h, HeldAs::datagram)) && waiting > 0) {
    c.block(h, "ERR_UDP_QUEUE", "a UDP socket with datagrams that were not read yet",
            "try again when they are read");
  }
  if (const auto peer = peer_address(h.dup.get())) h.record.set("peer", pack_inet(*peer));
}

void capture(Handle& h, CaptureContext& c) {
  const int fd = h.dup.get();
  const int family = int_option(fd, SO_DOMAIN), type = int_option(fd, SO_TYPE);
  h.record.set("family", family == AF_INET ? "ipv4" : "ipv6")
      .set("type", type == SOCK_STREAM ? "tcp" : "udp");
  const auto local = local_address(fd);
  if (local && local->port() != 0) {
    h.record.set("local", pack_inet(*local));
    h.link = show(*local);  // what a person knows it by, in messages
  }
  type == SOCK_STREAM ? capture_tcp(h, c) : capture_udp(h, c);
  h.record.set("options", changed_options(fd, c.fresh_options(fd)));
  if (has_filter(fd))
    c.block(h, "ERR_UNSUPPORTED", "a socket filter (SO_ATTACH_FILTER)", "let the program detach it first");
}

// A socket on which the program finds its connection reset by the other side.
int make_reset(RebuildContext& c, int family) {
  // Both of the pod's network namespace, which need not be ours.
  const auto make = [&] {
    Batch b = c.batch();
    const size_t made = b.call(SYS_socket, family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    return c.run_for_fd(b, made, "socket", "making a socket");
  };
  const int listening = make(), fd = make();
  const UniqueFd listener = c.take(listening), mine = c.take(fd);
  c.close(listening);
  Value loopback = Value::map();
  loopback.set("address", family == AF_INET ? "127.0.0.1" : "::1").set("port", 0);
  InetAddress any = unpack_inet(loopback, family);
  check(bind(listener.get(), any.get(), any.size), "bind", "making a reset connection");
  check(listen(listener.get(), 1), "listen", "making a reset connection");
  const auto at = local_address(listener.get());
  check(connect(mine.get(), at->get(), at->size), "connect", "making a reset connection");
  UniqueFd other(accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  const linger now{1, 0};
  setsockopt(other.get(), SOL_SOCKET, SO_LINGER, &now, sizeof now);
  return fd;
}

// The same peer dialled again. -1 if it does not answer.
int reconnect(const Value& record, RebuildContext& c, int family) {
  constexpr int kPatienceMs = 3000;  // the pod waits for it
  Batch b = c.batch();
  const size_t made = b.call(SYS_socket, family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  const int fd = c.run_for_fd(b, made, "socket", "making a socket");
  const UniqueFd mine = c.take(fd);
  set_options(mine.get(), record.at("options"), OptionsWhen::before_bind);
  const InetAddress peer = unpack_inet(record.at("peer"), family);
  int error = 0;
  socklen_t size = sizeof error;
  pollfd p{mine.get(), POLLOUT, 0};
  const bool connected = connect(mine.get(), peer.get(), peer.size) == 0 ||
                         (errno == EINPROGRESS && poll(&p, 1, kPatienceMs) > 0 &&
                          getsockopt(mine.get(), SOL_SOCKET, SO_ERROR, &error, &size) == 0 && error == 0);
  if (!connected) {
    c.close(fd);
    c.notes.push_back("the connection to " + show(peer) +
                      " could not be made again: its program finds it reset");
    return -1;
  }
  set_options(mine.get(), record.at("options"), OptionsWhen::after);
  return fd;
}

int rebuild(const Value& record, RebuildContext& c) {
  const int family = record.at("family").as_string() == "ipv4" ? AF_INET : AF_INET6;
  const bool tcp = record.at("type").as_string() == "tcp";
  const std::string& state = record.at("state").as_string();
  const Value& options = record.at("options");
  if (const Value* repair = record.find("repair"); repair != nullptr && state == "connected") {
    UniqueFd made = make_connection(*repair, options, family, c.addresses_come_later);
    set_status_flags(made.get(), static_cast<int>(record.at("flags").as_int()));
    const int fd = c.push(made.get());
    c.silent.push_back({&record, std::move(made), false});
    return fd;
  }
  if (state == "reset" || state == "connected" || state == "reconnect") {
    int fd = state == "reconnect" ? reconnect(record, c, family) : -1;
    if (fd < 0) fd = make_reset(c, family);
    set_status_flags(c.take(fd).get(), static_cast<int>(record.at("flags").as_int()));
    return fd;
  }
  Batch b = c.batch();
  const size_t made = b.call(SYS_socket, family, (tcp ? SOCK_STREAM : SOCK_DGRAM) | SOCK_CLOEXEC, 0);
  const int fd = c.run_for_fd(b, made, "socket", "making a socket");
  const UniqueFd mine = c.take(fd);
  set_options(mine.get(), options, OptionsWhen::before_bind);
  if (const Value* local = record.find("local")) {
    const InetAddress address = unpack_inet(*local, family);
    // Connections of the pod's former life may linger in TIME_WAIT; SO_REUSEADDR lets us bind beside them,
    // and another listener is an error all the same.
    const int reuse = int_option(mine.get(), SO_REUSEADDR), on = 1;
    if (tcp) setsockopt(mine.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    bool bound = bind(mine.get(), address.get(), address.size) == 0;
    const bool listening = state == "listening";
    const auto backlog = static_cast<int>(record.get_int("backlog", 0));
    if (bound && listening) bound = listen(mine.get(), backlog) == 0;
    if (!bound) {
      throw OsError(errno == EADDRINUSE ? "ERR_PORT_IN_USE" : "ERR_SYSCALL", listening ? "listen" : "bind",
                    errno, std::string(listening ? "listening on " : "binding ") + show(address));
    }
    if (tcp) setsockopt(mine.get(), SOL_SOCKET, SO_REUSEADDR, &reuse, sizeof reuse);
  }
  if (const Value* peer = record.find("peer")) {
    const InetAddress address = unpack_inet(*peer, family);
    check(connect(mine.get(), address.get(), address.size), "connect", "connecting a UDP socket");
  }
  set_options(mine.get(), options, OptionsWhen::after);
  set_status_flags(mine.get(), static_cast<int>(record.at("flags").as_int()));
  return fd;
}

}  // namespace

FarSocket far_inet_socket(const Value& record) {
  FarSocket s;
  s.family = record.at("family").as_string() == "ipv4" ? AF_INET : AF_INET6;
  s.type = record.at("type").as_string() == "tcp" ? SOCK_STREAM : SOCK_DGRAM;
  const auto packed = [&](const char* name) {
    const Value* address = record.find(name);
    return address == nullptr ? std::string() : unpack_inet(*address, s.family).bytes();
  };
  s.local = packed("local");
  s.peer = packed("peer");
  // Of a connection that is over: whoever it was with, the program can't ask any more (getpeername(2), ENOTCONN).
  if (s.peer.empty() && s.type == SOCK_STREAM) {
    Value nobody = Value::map();
    nobody.set("address", s.family == AF_INET ? "192.0.2.1" : "2001:db8::1").set("port", 9);
    s.peer = unpack_inet(nobody, s.family).bytes();
  }
  for (const Value& option : record.at("options").as_list()) {
    const auto& parts = option.as_list();
    if (parts.at(0).as_int() == IPPROTO_IPV6 && parts.at(1).as_int() == IPV6_V6ONLY)
      s.v6_only = parts.at(2).as_bytes().find_first_not_of('\0') != std::string::npos;
  }
  return s;
}

const Kind kInetSocket{"inet-socket", recognise, capture, rebuild};

}  // namespace virt
