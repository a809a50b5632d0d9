// relay/datagram_stash: UDP sockets that may send to anybody and receive from anybody. Runs as root, or in a user namespace of its own.
#include "relay/datagram_stash.h"

#include <arpa/inet.h>
#include <doctest/doctest.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <vector>

#include "sys/file.h"
#include "test/inet_text.h"
#include "test/own_namespace.h"
#include "test/support.h"

using namespace virt;
using test::ip;
using test::own_namespace;
using test::show;

namespace {

bool readable(int fd, int ms = 5000) {
  pollfd p{fd, POLLIN, 0};
  return poll(&p, 1, ms) == 1;
}

// The next datagram that a program has sent.
bool next(DatagramStash& stash, Datagram* d) {
  while (!stash.receive(d)) {
    if (!readable(stash.fd())) return false;
  }
  return true;
}

void send_to(const UniqueFd& fd, const std::string& text, const StashAddress& to) {
  const ssize_t sent = sendto(fd.get(), text.data(), text.size(), 0, to.get(), to.size);
  if (sent < 0) FAIL("sendto ", show(to), ": ", std::strerror(errno));
  CHECK(sent == static_cast<ssize_t>(text.size()));
}

struct Received {
  std::string text;
  StashAddress from;
};

Received receive_from(const UniqueFd& fd) {
  std::string text(70000, '\0');
  Received r;
  r.from.size = sizeof r.from.storage;
  REQUIRE(readable(fd.get()));
  const ssize_t got = recvfrom(fd.get(), text.data(), text.size(), 0, r.from.get(), &r.from.size);
  REQUIRE(got >= 0);
  text.resize(static_cast<size_t>(got));
  r.text = std::move(text);
  return r;
}

DatagramSocket socket_at(uint32_t id, const StashAddress& local) {
  DatagramSocket s;
  s.id = id;
  s.local = local;
  return s;
}

void check_both_ways(DatagramStash& stash, uint32_t id, const UniqueFd& fd, const StashAddress& remote) {
  CAPTURE(show(remote));
  send_to(fd, "question", remote);
  Datagram d;
  REQUIRE(next(stash, &d));
  CHECK(d.socket == id);
  CHECK(show(d.remote) == show(remote));
  CHECK(d.remote.size == remote.size);
  CHECK(d.payload == "question");
  d.payload = "the answer";
  REQUIRE(stash.send(d));
  const Received r = receive_from(fd);
  CHECK(r.text == "the answer");
  CHECK(show(r.from) == show(remote));
}

// A machine may have none; nothing can be shown there then.
bool no_tun() {
  if (access("/dev/net/tun", R_OK | W_OK) == 0) return false;
  MESSAGE("skipped: no /dev/net/tun");
  return true;
}

size_t open_descriptors() { return try_list_numbers("/proc/self/fd")->size(); }

}  // namespace

TEST_CASE("bound sockets send to anybody and receive from anybody, under the addresses they had") {
  if (no_tun()) return;
  own_namespace();
  DatagramStash stash;
  REQUIRE(stash.open() == 0);
  const char* const locals[] = {"203.0.113.5", "127.0.0.1",     "0.0.0.0", "::ffff:203.0.113.6",
                                "::",          "2001:db8:1::5", "10.0.0.1"};
  uint32_t id = 100;
  for (const char* local : locals) {
    CAPTURE(local);
    const StashAddress at = ip(local, 5300 + static_cast<int>(id));
    UniqueFd fd;
    REQUIRE(stash.make_socket(socket_at(++id, at), &fd) == 0);
    StashAddress name;
    name.size = sizeof name.storage;
    REQUIRE(getsockname(fd.get(), name.get(), &name.size) == 0);
    CHECK(show(name) == show(at));
    CHECK((fcntl(fd.get(), F_GETFD) & FD_CLOEXEC) != 0);
    const bool v6 = at.family() == AF_INET6, six = plain(at).family() == AF_INET6, any = is_wildcard(at);
    if (!v6) {
      // Its own address too: there, others had it as well.
      for (const char* remote :
           {"8.8.8.8", "127.0.0.1", "127.0.0.53", "10.0.0.1", "203.0.113.5", "192.168.1.1"}) {
        check_both_ways(stash, id, fd, ip(remote, 53));
      }
    } else if (!six || any) {
      for (const char* remote : {"::ffff:8.8.8.8", "::ffff:127.0.0.1", "::ffff:203.0.113.6"}) {
        check_both_ways(stash, id, fd, ip(remote, 53));
      }
    }
    if (six) {
      for (const char* remote : {"2001:4860:4860::8888", "2001:db8:1::5", "fd00::1"}) {
        check_both_ways(stash, id, fd, ip(remote, 53));
      }
    }
  }
}

TEST_CASE("sockets of one port are told apart by their addresses") {
  if (no_tun()) return;
  own_namespace();
  DatagramStash stash;
  REQUIRE(stash.open() == 0);
  UniqueFd a, b, c, d;
  REQUIRE(stash.make_socket(socket_at(1, ip("192.0.2.1", 53)), &a) == 0);
  REQUIRE(stash.make_socket(socket_at(2, ip("192.0.2.2", 53)), &b) == 0);
  DatagramSocket six = socket_at(3, ip("::", 53));
  six.v6_only = true;
  REQUIRE(stash.make_socket(six, &c) == 0);
  check_both_ways(stash, 1, a, ip("192.0.2.2", 53));
  check_both_ways(stash, 2, b, ip("192.0.2.1", 53));
  check_both_ways(stash, 3, c, ip("2001:db8::1", 53));
  CHECK(stash.make_socket(socket_at(4, ip("192.0.2.1", 53)), &d) == EADDRINUSE);
  CHECK(stash.make_socket(socket_at(1, ip("192.0.2.9", 53)), &d) == EEXIST);
  // Some share theirs.
  DatagramSocket shared = socket_at(5, ip("192.0.2.3", 99));
  shared.reuse_port = true;
  REQUIRE(stash.make_socket(shared, &a) == 0);
  shared.id = 6;
  REQUIRE(stash.make_socket(shared, &d) == 0);
  stash.forget(2);
  Datagram gone;
  gone.socket = 2;
  gone.remote = ip("8.8.8.8", 53);
  CHECK(!stash.send(gone));
  send_to(b, "unheard", ip("8.8.8.8", 53));
  check_both_ways(stash, 3, c, ip("2001:db8::1", 53));
}

TEST_CASE("datagrams of every size go through whole") {
  if (no_tun()) return;
  own_namespace();
  DatagramStash stash;
  REQUIRE(stash.open() == 0);
  UniqueFd four, six;
  REQUIRE(stash.make_socket(socket_at(1, ip("192.0.2.1", 7)), &four) == 0);
  REQUIRE(stash.make_socket(socket_at(2, ip("2001:db8::1", 7)), &six) == 0);
  test::Random random(7);
  for (const size_t size : {size_t{0}, size_t{1}, size_t{2}, size_t{1471}, size_t{1501}, size_t{9001},
                            size_t{65487}, size_t{65507}}) {
    for (const bool v4 : {true, false}) {
      if (!v4 && size > 65487) continue;
      CAPTURE(size);
      CAPTURE(v4);
      std::string text(size, '\0');
      for (char& c : text) c = static_cast<char>(random.next());
      const UniqueFd& fd = v4 ? four : six;
      const StashAddress remote = ip(v4 ? "8.8.4.4" : "2001:db8::2", 9);
      send_to(fd, text, remote);
      Datagram d;
      REQUIRE(next(stash, &d));
      CHECK(d.payload == text);
      REQUIRE(stash.send(d));
      CHECK(receive_from(fd).text == text);
    }
  }
  Datagram d;
  const std::string much(65508, 'x');
  d.socket = 1;
  d.remote = ip("8.8.8.8", 1);
  d.payload = much;
  CHECK(!stash.send(d));
  d.socket = 2;
  d.remote = ip("2001:db8::2", 1);
  d.payload = std::string_view(much).substr(0, 65488);
  CHECK(!stash.send(d));
}

TEST_CASE("what cannot be served is refused or dropped, and the rest goes on") {
  if (no_tun()) return;
  own_namespace();
  const size_t before = open_descriptors();
  {
    DatagramStash stash;
    UniqueFd fd;
    CHECK(stash.make_socket(socket_at(1, ip("192.0.2.1", 7)), &fd) == ENOTCONN);
    REQUIRE(stash.open() == 0);
    CHECK(stash.make_socket(socket_at(1, ip("192.0.2.1", 0)), &fd) == EINVAL);
    CHECK(stash.make_socket(socket_at(1, StashAddress{}), &fd) == EINVAL);
    for (const char* local : {"224.0.0.251", "255.255.255.255", "::1", "fe80::1", "ff02::fb"}) {
      CAPTURE(local);
      CHECK(stash.make_socket(socket_at(1, ip(local, 7)), &fd) == EOPNOTSUPP);
    }
    REQUIRE(stash.make_socket(socket_at(1, ip("0.0.0.0", 7)), &fd) == 0);
    const int on = 1;
    REQUIRE(setsockopt(fd.get(), SOL_SOCKET, SO_BROADCAST, &on, sizeof on) == 0);
    for (const char* to : {"255.255.255.255", "224.0.0.251"}) {
      const StashAddress all = ip(to, 9);
      (void)sendto(fd.get(), "all", 3, 0, all.get(), all.size);
    }
    check_both_ways(stash, 1, fd, ip("8.8.8.8", 53));
    Datagram d;
    d.socket = 1;
    for (const char* from : {"224.0.0.1", "255.255.255.255", "0.0.0.0", "::1", "ff02::1", "::"}) {
      CAPTURE(from);
      d.remote = ip(from, 9);
      CHECK(!stash.send(d));
    }
    d.remote = StashAddress{};
    CHECK(!stash.send(d));
    check_both_ways(stash, 1, fd, ip("8.8.8.8", 53));
  }
  CHECK(open_descriptors() == before);
}

TEST_CASE("/dev/net/tun may be given, where it is out of sight; what is none is refused") {
  if (no_tun()) return;
  own_namespace();
  const UniqueFd tun(open("/dev/net/tun", O_PATH | O_CLOEXEC)), null(open("/dev/null", O_RDWR | O_CLOEXEC));
  REQUIRE(tun);
  {
    DatagramStash stash;
    REQUIRE(stash.open(tun.get()) == 0);
    UniqueFd fd;
    REQUIRE(stash.make_socket(socket_at(1, ip("192.0.2.1", 7)), &fd) == 0);
    check_both_ways(stash, 1, fd, ip("8.8.8.8", 53));
  }
  DatagramStash other;
  CHECK(other.open(null.get()) == ENOTTY);
  CHECK(other.open(9999) == ENOENT);
  CHECK(other.fd() == -1);
  CHECK(other.open() == 0);
}
