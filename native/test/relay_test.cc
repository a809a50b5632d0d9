// relay: connections through a tunnel are as they would be without: bytes, ends, resets, urgent bytes, back-pressure.
#include "relay/relay.h"

#include <doctest/doctest.h>
#include <sys/resource.h>

#include "test/relay_traffic.h"

using namespace virt;
using namespace virt::test;

namespace {

// As much as a connection takes when nobody reads.
size_t fill(int fd) {
  const std::string text(64 << 10, 'f');
  size_t total = 0;
  for (int idle = 0; idle < 100;) {
    const ssize_t n = send(fd, text.data(), text.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n > 0) {
      total += static_cast<size_t>(n);
      idle = 0;
    } else {
      ++idle;
      sleep_us(1000);
    }
  }
  return total;
}

}  // namespace

TEST_CASE("random bytes both ways over many channels, unix and TCP") {
  const size_t before = open_descriptors();
  {
    Hosts hosts;
    hosts.add(10, tcp_pair);
    hosts.add(10, [] { return unix_pair(); });
    hosts.start_and_connect();
    Traffic traffic(1);
    traffic.both_ways(hosts, 3'000'000);
    traffic.run();
    CHECK(wait_until([&] {
      return hosts.holder->status().over == Over::ended && hosts.relay->status().over == Over::ended;
    }));
    const Status status = hosts.relay->status();
    CHECK(status.streams == 0);
    CHECK(status.bytes_in >= 20 * 3'000'000);
    CHECK(status.bytes_out >= 20 * 3'000'000);
    CHECK(status.reset == 0);
    CHECK(status.violations == 0);
    pollfd news{hosts.relay->news_fd(), POLLIN, 0};
    CHECK(poll(&news, 1, 0) == 1);
  }
  CHECK(open_descriptors() == before);
}

TEST_CASE("an end of one direction leaves the other open") {
  for (Pair (*make)() : {+[] { return tcp_pair(); }, +[] { return unix_pair(); }}) {
    for (const bool from_outside : {true, false}) {
      Hosts hosts;
      hosts.add(1, make);
      hosts.start_and_connect();
      const int a = from_outside ? hosts.outside[0].get() : hosts.program[0].get();
      const int b = from_outside ? hosts.program[0].get() : hosts.outside[0].get();
      write_text(a, "question");
      REQUIRE(shutdown(a, SHUT_WR) == 0);
      CHECK(read_text(b, 100) == "question");
      char c;
      CHECK(read_from(b, &c, 1) == 0);
      for (int i = 0; i < 3; ++i) {
        write_text(b, "answer");
        CHECK(read_text(a, 6) == "answer");
      }
      CHECK(hosts.relay->status().streams == 1);
      REQUIRE(shutdown(b, SHUT_WR) == 0);
      CHECK(read_from(a, &c, 1) == 0);
      CHECK(wait_until([&] { return hosts.holder->status().streams + hosts.relay->status().streams == 0; }));
    }
  }
}

TEST_CASE("a reset comes through after what was sent before it") {
  for (const bool from_outside : {true, false}) {
    Hosts hosts;
    hosts.add(1, tcp_pair);
    hosts.start_and_connect();
    UniqueFd& a = from_outside ? hosts.outside[0] : hosts.program[0];
    const int b = from_outside ? hosts.program[0].get() : hosts.outside[0].get();
    write_text(a.get(), "last words");
    CHECK(read_text(b, 4) == "last");
    reset_socket(a);
    CHECK(wait_until([&] { return hosts.holder->status().streams + hosts.relay->status().streams == 0; }));
    CHECK(read_text(b, 6) == " words");
    char c;
    CHECK(read_from(b, &c, 1) == -ECONNRESET);
  }
}

TEST_CASE("a reset is noticed while one direction has ended") {
  for (const bool ended_by_it : {true, false}) {
    Hosts hosts;
    hosts.add(1, tcp_pair);
    hosts.start_and_connect();
    UniqueFd& a = ended_by_it ? hosts.outside[0] : hosts.program[0];
    const int b = ended_by_it ? hosts.program[0].get() : hosts.outside[0].get();
    REQUIRE(shutdown(a.get(), SHUT_WR) == 0);
    char c;
    CHECK(read_from(b, &c, 1) == 0);
    reset_socket(hosts.outside[0]);
    CHECK(wait_until([&] { return hosts.holder->status().streams + hosts.relay->status().streams == 0; }));
    int error = 0;
    socklen_t size = sizeof error;
    REQUIRE(getsockopt(hosts.program[0].get(), SOL_SOCKET, SO_ERROR, &error, &size) == 0);
    // After a FIN from the other side TCP says EPIPE (CLOSE_WAIT), otherwise ECONNRESET.
    CHECK((error == ECONNRESET || error == EPIPE));
  }
}

TEST_CASE("a closed unix socket is closed for its peer") {
  Hosts hosts;
  hosts.add(1, [] { return unix_pair(); });
  hosts.start_and_connect();
  hosts.outside[0].reset();
  char c;
  CHECK(read_from(hosts.program[0].get(), &c, 1) == 0);
  CHECK(wait_until([&] { return send(hosts.program[0].get(), "x", 1, MSG_NOSIGNAL) < 0 && errno == EPIPE; }));
  CHECK(wait_until([&] { return hosts.holder->status().streams + hosts.relay->status().streams == 0; }));
}

TEST_CASE("an urgent byte keeps its place, out of band and in line") {
  for (const bool in_line : {false, true}) {
    for (const bool from_outside : {true, false}) {
      Hosts hosts;
      hosts.add(1, tcp_pair);
      hosts.start_and_connect();
      const int a = from_outside ? hosts.outside[0].get() : hosts.program[0].get();
      const int b = from_outside ? hosts.program[0].get() : hosts.outside[0].get();
      const int on = in_line ? 1 : 0;
      REQUIRE(setsockopt(b, SOL_SOCKET, SO_OOBINLINE, &on, sizeof on) == 0);
      for (int round = 0; round < 50; ++round) {
        write_text(a, "before");
        REQUIRE(send(a, "!", 1, MSG_OOB) == 1);
        write_text(a, "after");
        if (round % 2 == 0) sleep_us(500);
        CHECK(read_text(b, 6) == "before");
        // The urgent byte is announced by poll(2) when it has come.
        pollfd p{b, POLLPRI, 0};
        REQUIRE(poll(&p, 1, 20'000) == 1);
        CHECK(sockatmark(b) == 1);
        char c = 0;
        if (!in_line) {
          CHECK(read_from(b, &c, 1, MSG_OOB) == 1);
          CHECK(c == '!');
          CHECK(read_text(b, 5) == "after");
        } else {
          CHECK(read_text(b, 6) == "!after");
        }
      }
    }
  }
}

TEST_CASE("an urgent byte that was read before is not read again") {
  Pair there = tcp_pair();
  REQUIRE(send(there.a.get(), "!", 1, MSG_OOB) == 1);
  char c = 0;
  REQUIRE(read_from(there.b.get(), &c, 1, MSG_OOB) == 1);
  Hosts hosts;
  hosts.add(std::move(there), tcp_pair(), Kind::stream);
  hosts.start_and_connect();
  write_text(hosts.outside[0].get(), "more");
  CHECK(read_text(hosts.program[0].get(), 4) == "more");
}

TEST_CASE("a connection that nobody reads stalls no other, and its writer") {
  Options options;
  options.window_bytes = 64 << 10;
  Hosts hosts(options);
  hosts.add(3, tcp_pair);
  hosts.start_and_connect();
  const size_t filled = fill(hosts.outside[0].get());
  CHECK(filled < (32 << 20));  // the kernel's queues and two windows
  Traffic traffic(2);
  traffic.flow(hosts.outside[1].get(), hosts.program[1].get(), 5'000'000);
  traffic.flow(hosts.program[2].get(), hosts.outside[2].get(), 5'000'000);
  traffic.run();
  CHECK(read_text(hosts.program[0].get(), filled) == std::string(filled, 'f'));
}

TEST_CASE("datagrams keep their boundaries") {
  Hosts hosts;
  hosts.add(
      1, [] { return unix_pair(SOCK_DGRAM); }, Kind::datagram);
  hosts.start_and_connect();
  for (const size_t size : {size_t{0}, size_t{1}, size_t{1400}, size_t{60'000}}) {
    const std::string text(size, 'd');
    for (const bool from_outside : {true, false}) {
      const int a = from_outside ? hosts.outside[0].get() : hosts.program[0].get();
      const int b = from_outside ? hosts.program[0].get() : hosts.outside[0].get();
      write_text(a, text);
      std::string got(70'000, 0);
      const ssize_t n = read_from(b, got.data(), got.size());
      REQUIRE(n == static_cast<ssize_t>(size));
      got.resize(size);
      CHECK(got == text);
    }
  }
}

TEST_CASE("datagrams of unconnected sockets say from whom and to whom") {
  const auto bound = [](sockaddr_in* name) {
    UniqueFd fd(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    *name = {};
    name->sin_family = AF_INET;
    name->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof *name;
    REQUIRE(bind(fd.get(), reinterpret_cast<sockaddr*>(name), size) == 0);
    REQUIRE(getsockname(fd.get(), reinterpret_cast<sockaddr*>(name), &size) == 0);
    return fd;
  };
  // A relay's end that is no socket: what is put into its box was sent by the program, to an address.
  class Translator : public DatagramEnd {
   public:
    Translator(UniqueFd fd, const sockaddr_in& to) : fd_(std::move(fd)), to_(to) {}
    [[nodiscard]] int fd() const override { return fd_.get(); }
    ssize_t receive(char* payload, char* address, size_t* size) override {
      const ssize_t n = recv(fd_.get(), payload, kDatagramBytes, MSG_DONTWAIT);
      std::memcpy(address, &to_, *size = sizeof to_);
      return n < 0 ? -errno : n;
    }
    bool send(std::string_view address, std::string_view payload) override {
      const std::string both = std::string(address) + std::string(payload);
      return ::send(fd_.get(), both.data(), both.size(), MSG_DONTWAIT) >= 0;
    }

   private:
    UniqueFd fd_;
    sockaddr_in to_;
  };
  Hosts hosts;
  sockaddr_in server{}, client{};
  UniqueFd held = bound(&server);
  const UniqueFd outside = bound(&client);
  Pair box = unix_pair(SOCK_DGRAM);
  REQUIRE(hosts.holder->add(1, std::move(held), Kind::datagram) == 0);
  REQUIRE(hosts.relay->add(1, std::make_unique<Translator>(std::move(box.b), client)) == 0);
  hosts.start_and_connect();
  REQUIRE(sendto(outside.get(), "ask", 3, 0, reinterpret_cast<sockaddr*>(&server), sizeof server) == 3);
  char got[100];
  REQUIRE(read_from(box.a.get(), got, sizeof got) == sizeof client + 3);
  CHECK(std::memcmp(got, &client, sizeof client) == 0);
  CHECK(std::string(got + sizeof client, 3) == "ask");
  write_text(box.a.get(), "told");
  sockaddr_in from{};
  socklen_t size = sizeof from;
  CHECK(recvfrom(outside.get(), got, sizeof got, 0, reinterpret_cast<sockaddr*>(&from), &size) == 4);
  CHECK(from.sin_port == server.sin_port);
}

TEST_CASE("five thousand channels") {
  const size_t before = open_descriptors();
  {
    rlimit limit{};
    REQUIRE(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    const rlimit most{limit.rlim_max, limit.rlim_max};
    REQUIRE(setrlimit(RLIMIT_NOFILE, &most) == 0);
    const size_t count = std::min<size_t>(5'000, (limit.rlim_max - 100) / 4);
    if (count < 5'000) MESSAGE("only ", count, " channels: the limit of open files is ", limit.rlim_max);
    Hosts hosts;
    hosts.add(count, [] { return unix_pair(); });
    hosts.start_and_connect();
    for (const char* text : {"ping", "pong"}) {
      for (size_t i = 0; i < hosts.outside.size(); ++i) write_text(hosts.outside[i].get(), text);
      for (size_t i = 0; i < hosts.outside.size(); ++i) CHECK(read_text(hosts.program[i].get(), 4) == text);
    }
    CHECK(hosts.relay->status().streams == count);
  }
  CHECK(open_descriptors() == before);
}

TEST_CASE("a socket of another kind is refused") {
  Relay relay(Role::relay, key_of(7));
  CHECK(relay.add(1, unix_pair(SOCK_SEQPACKET).a, Kind::stream) == EPROTOTYPE);
  CHECK(relay.add(1, unix_pair(SOCK_SEQPACKET).a, Kind::datagram) == EPROTOTYPE);
  CHECK(relay.add(1, unix_pair(SOCK_DGRAM).a, Kind::stream) == EPROTOTYPE);
  CHECK(relay.add(1, unix_pair().a, Kind::stream) == 0);
  CHECK(relay.add(1, unix_pair().a, Kind::stream) == EEXIST);
}
