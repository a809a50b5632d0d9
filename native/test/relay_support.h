// What the relay's tests need: sockets in pairs, a holder and a relay with connections between them.
#pragma once

#include <doctest/doctest.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "relay/relay.h"
#include "sys/clocks.h"
#include "test/support.h"

namespace virt::test {

using namespace virt::relay;

constexpr int64_t kPatienceNs = 60'000'000'000;

struct Pair {
  UniqueFd a, b;
};

inline Pair unix_pair(int type = SOCK_STREAM) {
  int fds[2];
  REQUIRE(socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, fds) == 0);
  return {UniqueFd(fds[0]), UniqueFd(fds[1])};
}

// A listening TCP socket on the loopback, and where it is.
struct TcpListener {
  TcpListener() : fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    REQUIRE(bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
    REQUIRE(listen(fd.get(), 64) == 0);
    socklen_t size = sizeof address;
    REQUIRE(getsockname(fd.get(), reinterpret_cast<sockaddr*>(&address), &size) == 0);
  }
  [[nodiscard]] const sockaddr* name() const { return reinterpret_cast<const sockaddr*>(&address); }
  [[nodiscard]] UniqueFd connected() const {
    UniqueFd s(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    REQUIRE(connect(s.get(), name(), sizeof address) == 0);
    const int on = 1;
    setsockopt(s.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    return s;
  }
  UniqueFd fd;
  sockaddr_in address{};
};

inline Pair tcp_pair() {
  const TcpListener listener;
  Pair pair;
  pair.a = listener.connected();
  pair.b.reset(accept4(listener.fd.get(), nullptr, nullptr, SOCK_CLOEXEC));
  REQUIRE(pair.b);
  return pair;
}

// What a blocking read says within the patience: bytes, 0 at the end, or -errno.
inline ssize_t read_from(int fd, void* data, size_t size, int flags = 0) {
  pollfd p{fd, static_cast<short>((flags & MSG_OOB) != 0 ? POLLPRI : POLLIN), 0};
  REQUIRE(poll(&p, 1, static_cast<int>(kPatienceNs / 1'000'000)) > 0);
  const ssize_t n = recv(fd, data, size, flags);
  return n < 0 ? -errno : n;
}

inline std::string read_text(int fd, size_t size) {
  std::string text;
  while (text.size() < size) {
    char buffer[4096];
    const ssize_t n = read_from(fd, buffer, std::min(sizeof buffer, size - text.size()));
    if (n <= 0) break;
    text.append(buffer, static_cast<size_t>(n));
  }
  return text;
}

inline void write_text(int fd, std::string_view text) {
  REQUIRE(send(fd, text.data(), text.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(text.size()));
}

inline void reset_socket(UniqueFd& fd) {
  const linger now{1, 0};
  REQUIRE(setsockopt(fd.get(), SOL_SOCKET, SO_LINGER, &now, sizeof now) == 0);
  fd.reset();
}

inline bool wait_until(const std::function<bool()>& done, int64_t patience_ns = kPatienceNs) {
  for (const int64_t end = monotonic_ns() + patience_ns; monotonic_ns() < end;) {
    if (done()) return true;
    sleep_us(200);
  }
  return done();
}

inline size_t open_descriptors() {
  size_t n = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) ++n;
  return n;
}

inline Key key_of(unsigned char seed) {
  Key key;
  for (size_t i = 0; i < sizeof key.bytes; ++i) key.bytes[i] = static_cast<unsigned char>(seed * 31 + i);
  return key;
}

// A holder and a relay. Of connection i the test has the two far ends: outside[i] and program[i].
class Hosts {
 public:
  explicit Hosts(Options given = {}, unsigned char relays_key = 7)
      : options(given),
        holder(std::make_unique<Relay>(Role::holder, key_of(7), given)),
        relay(std::make_unique<Relay>(Role::relay, key_of(relays_key), given)) {}

  void add(size_t count, Pair (*make)(), Kind kind = Kind::stream) {
    for (size_t i = 0; i < count; ++i) add(make(), make(), kind);
  }
  void add(Pair there, Pair here, Kind kind) {
    const auto id = static_cast<uint32_t>(outside.size() + 1);
    REQUIRE(holder->add(id, std::move(there.b), kind) == 0);
    REQUIRE(relay->add(id, std::move(here.b), kind) == 0);
    outside.push_back(std::move(there.a));
    program.push_back(std::move(here.a));
  }
  // The relay dials `through`, or the holder itself.
  void start(const TcpListener* through = nullptr) {
    holder->accept_from(UniqueFd(fcntl(listener.fd.get(), F_DUPFD_CLOEXEC, 0)));
    dialled = through == nullptr ? &listener : through;
    REQUIRE(relay->dial(dialled->name(), sizeof dialled->address) == 0);
    REQUIRE(holder->start() == 0);
    REQUIRE(relay->start() == 0);
  }
  void start_and_connect() {
    start();
    REQUIRE(wait_until([this] { return relay->status().connected && holder->status().connected; }));
  }

  Options options;
  TcpListener listener;
  const TcpListener* dialled = nullptr;
  std::unique_ptr<Relay> holder, relay;
  std::vector<UniqueFd> outside, program;
};

}  // namespace virt::test
