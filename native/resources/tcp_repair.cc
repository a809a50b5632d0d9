#include "resources/tcp_repair.h"

#include <linux/membarrier.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstring>
#include <vector>

#include "base/error.h"
#include "base/scope_exit.h"
#include "resources/socket_options.h"
#include "sys/clocks.h"

namespace virt {
namespace {

constexpr int64_t kMostQueued = 256 << 20;
// Codes of options in a handshake (RFC 9293, 7323, 2018), as TCP_REPAIR_OPTIONS takes them.
constexpr uint32_t kMaxSegment = 2, kWindowScale = 3, kSelective = 4, kTimestamps = 8;

// tcp_info's states by name; those a connection can be carried in.
struct StateName {
  int state;
  const char* name;
  bool fin_sent;
};
constexpr StateName kStates[] = {
    {TCP_ESTABLISHED, "established", false}, {TCP_CLOSE_WAIT, "close-wait", false},
    {TCP_FIN_WAIT1, "fin-wait-1", true},     {TCP_FIN_WAIT2, "fin-wait-2", true},
    {TCP_LAST_ACK, "last-ack", true},        {TCP_CLOSING, "closing", true},
};

const StateName* state_of(int state) {
  for (const StateName& s : kStates) {
    if (s.state == state) return &s;
  }
  return nullptr;
}

const StateName& state_named(const std::string& name) {
  for (const StateName& s : kStates) {
    if (name == s.name) return s;
  }
  throw BadValue("a TCP connection in an unknown state");
}

void set_tcp(int fd, int name, int value, const char* doing) {
  check(setsockopt(fd, IPPROTO_TCP, name, &value, sizeof value), "setsockopt", doing);
}

int get_tcp(int fd, int name, const char* doing) {
  int value = 0;
  socklen_t size = sizeof value;
  check(getsockopt(fd, IPPROTO_TCP, name, &value, &size), "getsockopt", doing);
  return value;
}

constexpr const char* kReading = "reading the state of a TCP connection";
constexpr const char* kMaking = "making a TCP connection of its state";

tcp_info info_of(int fd) {
  tcp_info info{};
  socklen_t size = sizeof info;
  check(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size), "getsockopt", kReading);
  return info;
}

// The last `size` bytes of what the queue shows: of a segment that was acknowledged in part it shows all.
std::string peek(int fd, int queue, int size) {
  constexpr size_t kMostSegment = 1 << 20;
  if (size <= 0) return {};
  set_tcp(fd, TCP_REPAIR_QUEUE, queue, kReading);
  std::string bytes(static_cast<size_t>(size) + (queue == TCP_SEND_QUEUE ? kMostSegment : 0), '\0');
  const ssize_t n = recv(fd, bytes.data(), bytes.size(), MSG_PEEK | MSG_DONTWAIT);
  if (n < size) throw OsError("recv", n < 0 ? errno : EIO, kReading);
  return bytes.substr(static_cast<size_t>(n - size), static_cast<size_t>(size));
}

uint32_t sequence(int fd, int queue) {
  set_tcp(fd, TCP_REPAIR_QUEUE, queue, kReading);
  return static_cast<uint32_t>(get_tcp(fd, TCP_QUEUE_SEQ, kReading));
}

int waiting(int fd, unsigned long request) {
  int bytes = 0;
  check(ioctl(fd, request, &bytes), "ioctl", kReading);
  return bytes;
}

uint32_t number(const Value& state, const char* name) {
  return static_cast<uint32_t>(state.at(name).as_int(0, UINT32_MAX));
}

}  // namespace

bool may_repair(const UniqueFd& fresh) {
  const int on = TCP_REPAIR_ON;
  return setsockopt(fresh.get(), IPPROTO_TCP, TCP_REPAIR, &on, sizeof on) == 0;
}

std::string repair_obstacle(int fd, int tcp_state) {
  if (state_of(tcp_state) == nullptr) return "that is just being made";
  char protocol[16] = {};
  socklen_t size = sizeof protocol;
  if (getsockopt(fd, IPPROTO_TCP, TCP_ULP, protocol, &size) == 0 && size > 0)
    return "that the kernel encrypts, or otherwise changes (TCP_ULP)";
  int locked = 0;
  size = sizeof locked;
  if (getsockopt(fd, SOL_SOCKET, SO_LOCK_FILTER, &locked, &size) == 0 && locked != 0)
    return "whose filter is locked (SO_LOCK_FILTER)";
  pollfd urgent{fd, POLLPRI, 0};
  if (poll(&urgent, 1, 0) > 0 && (urgent.revents & POLLPRI) != 0)
    return "with an urgent byte that was not read yet";
  return {};
}

void await_silence() {
  // Segments are taken in under the lock that it waits for (RCU): those that met the socket without the filter are through.
  check(syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0), "membarrier", kReading);
}

Value try_read_connection(int fd) {
  InetAddress local, peer;
  local.size = peer.size = sizeof local.storage;
  check(getsockname(fd, reinterpret_cast<sockaddr*>(&local.storage), &local.size), "getsockname", kReading);
  if (getpeername(fd, reinterpret_cast<sockaddr*>(&peer.storage), &peer.size) != 0) return Value();
  set_tcp(fd, TCP_REPAIR, TCP_REPAIR_ON, kReading);
  const ScopeExit off([fd] { (void)leave_repair(fd); });
  const tcp_info info = info_of(fd);
  const StateName* name = state_of(info.tcpi_state);
  if (const std::string why = repair_obstacle(fd, info.tcpi_state); !why.empty()) {
    throw OsError(
        "ERR_CONNECTION", "getsockopt", EAGAIN,
        "a TCP connection to " + show(peer) + " " + (name == nullptr ? "that has just ended" : why));
  }
  Value v = Value::map();
  v.set("state", name->name).set("local", pack_inet(local)).set("peer", pack_inet(peer));
  int unacknowledged = waiting(fd, SIOCOUTQ);
  // An end of our own counts as a byte, and is not in the queue.
  const uint32_t sent = sequence(fd, TCP_SEND_QUEUE) - (name->fin_sent ? 1 : 0);
  if (name->fin_sent && info.tcpi_state != TCP_FIN_WAIT2) --unacknowledged;
  const std::string out = peek(fd, TCP_SEND_QUEUE, unacknowledged);
  // An end of the peer's counts as a byte too. A socket cannot be told of it but by a segment, and is rebuilt with SHUT_RD, for its
  // program the same; so its queue is one further on, and its last number is that which the peer knows.
  const uint32_t received = sequence(fd, TCP_RECV_QUEUE);
  const std::string in = peek(fd, TCP_RECV_QUEUE, waiting(fd, SIOCINQ));
  pollfd ended{fd, POLLRDHUP, 0};
  if (poll(&ended, 1, 0) > 0 && (ended.revents & POLLRDHUP) != 0) v.set("ended", true);
  v.set("sendSequence", static_cast<int64_t>(sent - static_cast<uint32_t>(out.size())));
  v.set("receiveSequence", static_cast<int64_t>(received - static_cast<uint32_t>(in.size())));
  v.set("unacknowledged", Value::bytes(out.data(), out.size()));
  v.set("unread", Value::bytes(in.data(), in.size()));
  // In repair mode it is what the peer takes, else what is sent.
  v.set("maxSegment", get_tcp(fd, TCP_MAXSEG, kReading));
  if ((info.tcpi_options & TCPI_OPT_WSCALE) != 0) {
    Value scales = Value::list();
    scales.push(static_cast<int64_t>(info.tcpi_snd_wscale));
    scales.push(static_cast<int64_t>(info.tcpi_rcv_wscale));
    v.set("windowScales", std::move(scales));
  }
  if ((info.tcpi_options & TCPI_OPT_SACK) != 0) v.set("selective", true);
  if ((info.tcpi_options & TCPI_OPT_TIMESTAMPS) != 0)
    v.set("timestamp", static_cast<int64_t>(static_cast<uint32_t>(get_tcp(fd, TCP_TIMESTAMP, kReading))));
  v.set("realtimeMs", realtime_ns() / 1'000'000);
  tcp_repair_window window{};
  socklen_t size = sizeof window;
  check(getsockopt(fd, IPPROTO_TCP, TCP_REPAIR_WINDOW, &window, &size), "getsockopt", kReading);
  v.set("sendWindowFrom", static_cast<int64_t>(window.snd_wl1))
      .set("sendWindow", static_cast<int64_t>(window.snd_wnd))
      .set("mostSendWindow", static_cast<int64_t>(window.max_window))
      .set("receiveWindow", static_cast<int64_t>(window.rcv_wnd))
      .set("receiveWindowFrom", static_cast<int64_t>(window.rcv_wup));
  return v;
}

namespace {

// Larger than the host allows others (CAP_NET_ADMIN), and TCP sizes it itself as before (SO_BUF_LOCK, Linux 5.14).
void make_room(int fd, int force, int64_t bytes) {
  const int half = static_cast<int>(std::min<int64_t>(bytes, INT_MAX / 4));
  check(setsockopt(fd, SOL_SOCKET, force, &half, sizeof half), "setsockopt", kMaking);
}

void set_window(int fd, const Value& state) {
  tcp_repair_window window{};
  window.snd_wl1 = number(state, "sendWindowFrom");
  window.snd_wnd = number(state, "sendWindow");
  window.max_window = std::max(number(state, "mostSendWindow"), window.snd_wnd);
  window.rcv_wnd = number(state, "receiveWindow");
  window.rcv_wup = number(state, "receiveWindowFrom");
  set_tcp(fd, TCP_REPAIR_QUEUE, TCP_RECV_QUEUE, kMaking);
  const auto next = static_cast<uint32_t>(get_tcp(fd, TCP_QUEUE_SEQ, kMaking));
  if (static_cast<int32_t>(window.rcv_wup - next) > 0) window.rcv_wup = next;
  check(setsockopt(fd, IPPROTO_TCP, TCP_REPAIR_WINDOW, &window, sizeof window), "setsockopt", kMaking);
}

// The peer takes no time for later than what it has seen (RFC 7323, PAWS), and the old host may have repeated something since:
// so on from there by the time that is gone, and some for clocks that differ.
void set_timestamp(int fd, const Value& state) {
  if (state.find("timestamp") == nullptr) return;
  constexpr int64_t kClocksDiffer = 60'000;
  const uint32_t then = number(state, "timestamp");
  const bool microseconds = (then & 1) != 0;  // the lowest bit says so (Linux 6.7)
  const int64_t gone = std::max<int64_t>(0, realtime_ns() / 1'000'000 - state.at("realtimeMs").as_int());
  const int64_t on = (gone + kClocksDiffer) * (microseconds ? 1000 : 1);
  const uint32_t now = ((then + static_cast<uint32_t>(on)) & ~1U) | (microseconds ? 1U : 0U);
  set_tcp(fd, TCP_TIMESTAMP, static_cast<int>(now), kMaking);
}

void set_agreed(int fd, const Value& state) {
  std::vector<tcp_repair_opt> agreed{
      {kMaxSegment, static_cast<uint32_t>(state.at("maxSegment").as_int(1, UINT16_MAX))}};
  if (const Value* scales = state.find("windowScales")) {
    constexpr int kMostScale = 14;
    const auto& both = scales->as_list();
    agreed.push_back({kWindowScale, static_cast<uint32_t>(both.at(0).as_int(0, kMostScale) |
                                                          both.at(1).as_int(0, kMostScale) << 16)});
  }
  if (state.get_bool("selective", false)) agreed.push_back({kSelective, 0});
  if (state.find("timestamp") != nullptr) agreed.push_back({kTimestamps, 0});
  check(setsockopt(fd, IPPROTO_TCP, TCP_REPAIR_OPTIONS, agreed.data(),
                   static_cast<socklen_t>(agreed.size() * sizeof agreed[0])),
        "setsockopt", kMaking);
}

// As tcp(7) takes it from programs.
int user_segment(const Value& state) {
  constexpr int kLeast = 88, kMost = 32767;
  return std::clamp(static_cast<int>(state.at("maxSegment").as_int()), kLeast, kMost);
}

// Lets it have an address that no interface has yet.
void set_early(int fd, int family, int on) {
  const bool v6 = family == AF_INET6;
  check(
      setsockopt(fd, v6 ? IPPROTO_IPV6 : IPPROTO_IP, v6 ? IPV6_TRANSPARENT : IP_TRANSPARENT, &on, sizeof on),
      "setsockopt", kMaking);
}

void put(int fd, int queue, const std::string& bytes) {
  set_tcp(fd, TCP_REPAIR_QUEUE, queue, kMaking);
  for (size_t at = 0; at < bytes.size();) {
    const ssize_t n = send(fd, bytes.data() + at, bytes.size() - at, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n <= 0) throw OsError("send", n < 0 ? errno : EIO, "filling the queues of a TCP connection");
    at += static_cast<size_t>(n);
  }
}

// Sizes that the program has chosen, of which TCP then leaves its hands.
Value buffers_in(const Value& options) {
  Value buffers = Value::list();
  for (const Value& option : options.as_list()) {
    const auto& parts = option.as_list();
    const int64_t name = parts.at(1).as_int();
    if (parts.at(0).as_int() == SOL_SOCKET && (name == SO_SNDBUF || name == SO_RCVBUF)) buffers.push(option);
  }
  return buffers;
}

const std::string& queue_of(const Value& state, const char* name) {
  const std::string& bytes = state.at(name).as_bytes();
  if (bytes.size() > static_cast<size_t>(kMostQueued)) throw BadValue("too much in a TCP connection's queue");
  return bytes;
}

}  // namespace

UniqueFd make_connection(const Value& state, const Value& options, int family, bool early) {
  const InetAddress local = unpack_inet(state.at("local"), family),
                    peer = unpack_inet(state.at("peer"), family);
  const std::string& out = queue_of(state, "unacknowledged");
  const std::string& in = queue_of(state, "unread");
  UniqueFd fd(socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd) throw OsError("socket", errno, kMaking);
  if (!may_repair(fd)) {
    throw OsError("ERR_NOT_PERMITTED", "setsockopt", errno,
                  "making the TCP connection to " + show(peer) +
                      " of its state: only root may, and not in a pod with rules for "
                      "isolation; or lose it with --tcp close");
  }
  if (const int error = silence(fd.get()); error != 0) throw OsError("setsockopt", error, kMaking);
  set_options(fd.get(), options, OptionsWhen::before_bind);
  set_tcp(fd.get(), TCP_REPAIR, TCP_REPAIR_ON, kMaking);  // the options may have set SO_REUSEADDR
  // Before it connects: the kernel derives from it what it may promise the peer.
  constexpr int64_t kOverhead = 256 << 10;
  make_room(fd.get(), SO_RCVBUFFORCE,
            2 * static_cast<int64_t>(in.size()) + int64_t{number(state, "receiveWindow")} + kOverhead);
  make_room(fd.get(), SO_SNDBUFFORCE, 2 * static_cast<int64_t>(out.size()) + kOverhead);
  set_tcp(fd.get(), TCP_REPAIR_QUEUE, TCP_SEND_QUEUE, kMaking);
  set_tcp(fd.get(), TCP_QUEUE_SEQ, static_cast<int>(number(state, "sendSequence")), kMaking);
  set_tcp(fd.get(), TCP_REPAIR_QUEUE, TCP_RECV_QUEUE, kMaking);
  set_tcp(fd.get(), TCP_QUEUE_SEQ, static_cast<int>(number(state, "receiveSequence")), kMaking);
  // What the peer takes is known to the kernel before it looks at the way there, or it would send small segments for good.
  set_tcp(fd.get(), TCP_MAXSEG, user_segment(state), kMaking);
  if (early) set_early(fd.get(), family, 1);
  if (bind(fd.get(), local.get(), local.size) != 0) {
    if (errno != EADDRNOTAVAIL) throw OsError("bind", errno, "binding " + show(local));
    throw OsError("ERR_CONNECTION", "bind", EADDRNOTAVAIL,
                  "the address of the TCP connection from " + show(local) + " to " + show(peer) +
                      " is not on this host: move it here first, or later with --tcp repair");
  }
  if (connect(fd.get(), peer.get(), peer.size) != 0) {
    if (errno != EADDRNOTAVAIL && errno != EADDRINUSE)
      throw OsError("connect", errno, "making the TCP connection from " + show(local) + " to " + show(peer));
    throw OsError("ERR_CONNECTION", "connect", errno,
                  "this host has a TCP connection from " + show(local) + " to " + show(peer) +
                      " already: end what has it, or its holder (virt-run rm -f)");
  }
  if (early) set_early(fd.get(), family, 0);
  set_tcp(fd.get(), TCP_MAXSEG, 0, kMaking);
  set_agreed(fd.get(), state);
  set_timestamp(fd.get(), state);
  return fd;
}

void fill_connection(const Value& state, const Value& options, int fd) {
  const StateName& name = state_named(state.at("state").as_string());
  put(fd, TCP_RECV_QUEUE, queue_of(state, "unread"));
  // As if all of it had been sent, though some may have waited for the peer's window: so nothing that the peer acknowledges is
  // news to us, whatever the old host has sent since this was read. What is missing there is repeated.
  put(fd, TCP_SEND_QUEUE, queue_of(state, "unacknowledged"));
  set_window(fd, state);
  // In repair mode our end is put into the queue, and not sent; that the peer's has come is told to nobody.
  set_tcp(fd, TCP_REPAIR_QUEUE, TCP_SEND_QUEUE, kMaking);
  if (name.fin_sent) check(shutdown(fd, SHUT_WR), "shutdown", kMaking);
  if (state.get_bool("ended", false)) check(shutdown(fd, SHUT_RD), "shutdown", kMaking);
  set_tcp(fd, TCP_REPAIR_QUEUE, TCP_NO_QUEUE, kMaking);
  const int unlocked = 0;
  (void)setsockopt(fd, SOL_SOCKET, SO_BUF_LOCK, &unlocked, sizeof unlocked);
  set_options(fd, buffers_in(options), OptionsWhen::before_bind);
  set_options(fd, options, OptionsWhen::after);
  if (const int error = silence(fd); error != 0)
    throw OsError("setsockopt", error, kMaking);  // keepalive is on again
}

SpokenOptions spoken_in(const Value& options) {
  SpokenOptions spoken;
  for (const Value& option : options.as_list()) {
    const auto& parts = option.as_list();
    const auto level = parts.at(0).as_int(), name = parts.at(1).as_int();
    uint32_t value = 0;
    const std::string& bytes = parts.at(2).as_bytes();
    std::memcpy(&value, bytes.data(), std::min(bytes.size(), sizeof value));
    if (level == SOL_SOCKET && name == SO_REUSEADDR) spoken.reuse_address = value;
    if (level == SOL_SOCKET && name == SO_KEEPALIVE) spoken.keep_alive = value;
    if (level == IPPROTO_TCP && name == TCP_USER_TIMEOUT) spoken.user_timeout_ms = value;
  }
  return spoken;
}

}  // namespace virt
