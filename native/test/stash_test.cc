// relay/stash: TCP and UDP pairs whose one end has addresses that this host has not. Runs as root, or in a user namespace of
// its own.
#include "relay/stash.h"

#include <sys/resource.h>

#include <chrono>
#include <thread>
#include <vector>

#include "test/stash_pairs.h"

using namespace virt;
using namespace virt::test;
using namespace std::literals;

namespace {

// SO_NETNS_COOKIE, by which a socket of a stash can be told.
uint64_t namespace_of(const UniqueFd& fd) {
  uint64_t cookie = 0;
  socklen_t size = sizeof cookie;
  CHECK(getsockopt(fd.get(), SOL_SOCKET, SO_NETNS_COOKIE, &cookie, &size) == 0);
  return cookie;
}

}  // namespace

TEST_CASE("TCP sockets have the addresses that they had elsewhere") {
  own_namespace();
  Stash stash;
  REQUIRE(stash.open() == 0);
  const UniqueFd ours(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  struct {
    const char *local, *peer;
  } const cases[] = {
      {"203.0.113.7", "198.51.100.99"},
      {"127.0.0.1", "127.0.0.1"},
      {"10.0.0.1", "10.0.0.1"},
      {"2001:db8::7", "2001:db8:ffff::99"},
      {"::1", "::1"},
      {"::ffff:203.0.113.7", "::ffff:198.51.100.99"},
  };
  for (const auto& c : cases) {
    CAPTURE(c.local);
    const StashPair p = checked_pair(stash, request(ip(c.local, 443), ip(c.peer, 51234)));
    CHECK(p.scope_kept);
    CHECK(namespace_of(p.program) == namespace_of(p.relay));
    CHECK(namespace_of(p.program) != namespace_of(ours));
    // As of a new socket: what the program had set is set by others.
    CHECK(int_option(p.program, SOL_SOCKET, SO_REUSEADDR) == 0);
    CHECK(int_option(p.program, IPPROTO_TCP, TCP_REPAIR) == 0);
    CHECK(int_option(p.program, IPPROTO_IP, IP_FREEBIND) == 0);
  }
  CHECK(stash.rooms() == 1);
}

TEST_CASE("a socket for IPv6 alone is one") {
  own_namespace();
  Stash stash;
  REQUIRE(stash.open() == 0);
  StashRequest r = request(ip("::ffff:192.0.2.1", 80), ip("::ffff:192.0.2.2", 8080));
  CHECK(int_option(checked_pair(stash, r).program, IPPROTO_IPV6, IPV6_V6ONLY) == 0);
  StashPair p;
  r.v6_only = true;
  CHECK(stash.pair(r, &p) == EINVAL);
  r = request(ip("2001:db8::3", 80), ip("2001:db8::4", 8080));
  r.v6_only = true;
  CHECK(int_option(checked_pair(stash, r).program, IPPROTO_IPV6, IPV6_V6ONLY) == 1);
  // What the kernel makes of it (inet6_bind): were it 0, this test would tell us that the header is wrong.
  r.v6_only = false;
  r.local = ip("2001:db8::5", 80);
  CHECK(int_option(checked_pair(stash, r).program, IPPROTO_IPV6, IPV6_V6ONLY) == 1);
}

TEST_CASE("both ends of one connection, and the same one twice, have rooms of their own") {
  own_namespace();
  Stash stash;
  REQUIRE(stash.open() == 0);
  const StashAddress a = ip("127.0.0.1", 6379), b = ip("127.0.0.1", 40000);
  const StashPair one = checked_pair(stash, request(a, b));
  const StashPair other = checked_pair(stash, request(b, a));
  const StashPair again = checked_pair(stash, request(a, b));
  const StashPair udp = checked_pair(stash, request(a, b, SOCK_DGRAM));
  const StashPair udp_other = checked_pair(stash, request(b, a, SOCK_DGRAM));
  put(one.relay, "one");
  put(other.relay, "other");
  put(again.relay, "again");
  CHECK(receive(one.program) == "one");
  CHECK(receive(other.program) == "other");
  CHECK(receive(again.program) == "again");
  CHECK(stash.rooms() <= 4);
}

TEST_CASE("a connection that has just ended is no hindrance to the same one") {
  own_namespace();
  Stash stash;
  REQUIRE(stash.open() == 0);
  for (int i = 0; i < 20; ++i) {
    StashPair p = checked_pair(stash, request(ip("192.0.2.1", 22), ip("192.0.2.2", 50022)));
    // Whoever closes first has TIME_WAIT.
    if (i % 2 == 0) {
      p.program.reset();
      CHECK(receive(p.relay).empty());
    } else {
      p.relay.reset();
      CHECK(receive(p.program).empty());
    }
  }
}

TEST_CASE(
    "thousands of clients of one server, whatever the program does with SO_REUSEADDR, and servers of one "
    "client") {
  own_namespace();
  const rlimit many{12000, 12000};
  rlimit old{};
  getrlimit(RLIMIT_NOFILE, &old);
  if (old.rlim_cur < many.rlim_cur) REQUIRE(setrlimit(RLIMIT_NOFILE, &many) == 0);
  const size_t before = open_descriptors();
  for (const bool same_local : {true, false}) {
    for (const char* server : {"203.0.113.1", "2001:db8::1"}) {
      CAPTURE(server);
      Stash stash;
      REQUIRE(stash.open() == 0);
      constexpr int kPairs = 5000;
      std::vector<StashPair> pairs(kPairs);
      const StashAddress here = ip(server, 6379);
      const auto began = std::chrono::steady_clock::now();
      for (int i = 0; i < kPairs; ++i) {
        const auto n = static_cast<size_t>(i);
        const StashAddress there = ip(server, 10000 + i);
        const int error = stash.pair(same_local ? request(here, there) : request(there, here), &pairs[n]);
        if (error != 0) FAIL("pair ", i, ": ", std::strerror(error));
      }
      const auto took = std::chrono::steady_clock::now() - began;
      MESSAGE(kPairs, " pairs in ", std::chrono::duration_cast<std::chrono::milliseconds>(took).count(),
              " ms");
      CHECK(stash.rooms() == 1);
      for (const int i : {0, 1, 2500, 4999}) {
        const auto n = static_cast<size_t>(i);
        CHECK(own_name(pairs[n].program) == bytes(same_local ? here : ip(server, 10000 + i)));
        put(pairs[n].relay, std::to_string(i));
        CHECK(receive(pairs[n].program) == std::to_string(i));
      }
    }
  }
  CHECK(open_descriptors() == before);
}

TEST_CASE("half a connection can be closed, and a reset arrives as one") {
  own_namespace();
  Stash stash;
  REQUIRE(stash.open() == 0);
  int port = 1000;
  for (const bool from_program : {true, false}) {
    CAPTURE(from_program);
    {
      const StashPair p = checked_pair(stash, request(ip("192.0.2.1", ++port), ip("192.0.2.2", 7)));
      const UniqueFd &one = from_program ? p.program : p.relay, &two = from_program ? p.relay : p.program;
      REQUIRE(shutdown(one.get(), SHUT_WR) == 0);
      CHECK(receive(two).empty());
      put(two, "still");
      CHECK(receive(one) == "still");
    }
    {
      StashPair p = checked_pair(stash, request(ip("192.0.2.1", ++port), ip("192.0.2.2", 7)));
      UniqueFd &one = from_program ? p.program : p.relay, &two = from_program ? p.relay : p.program;
      const linger now{1, 0};
      REQUIRE(setsockopt(one.get(), SOL_SOCKET, SO_LINGER, &now, sizeof now) == 0);
      one.reset();
      REQUIRE(readable(two));
      char byte;
      CHECK(recv(two.get(), &byte, 1, 0) == -1);
      CHECK(errno == ECONNRESET);
    }
  }
}

TEST_CASE("link-local addresses keep their interface's number") {
  own_namespace();
  Stash stash;
  REQUIRE(stash.open() == 0);
  for (uint32_t scope = 1; scope <= 24; ++scope) {
    for (const int type : {SOCK_STREAM, SOCK_DGRAM}) {
      CAPTURE(scope);
      CAPTURE(type);
      const StashPair p = checked_pair(
          stash, request(ip("fe80::1:2", 8080, scope), ip("fe80::abcd:1", 40000 + type, scope), type));
      CHECK(p.scope_kept);
      if (type == SOCK_DGRAM) continue;
      // Packets sent before the interface's addresses were in use would be lost.
      tcp_info info{};
      socklen_t size = sizeof info;
      CHECK(getsockopt(p.program.get(), IPPROTO_TCP, TCP_INFO, &info, &size) == 0);
      CHECK(info.tcpi_total_retrans == 0);
    }
  }
  CHECK(stash.rooms() == 1);
}

TEST_CASE("connected UDP sockets keep boundaries and addresses") {
  own_namespace();
  Stash stash;
  REQUIRE(stash.open() == 0);
  struct {
    const char *local, *peer;
  } const cases[] = {{"203.0.113.7", "8.8.8.8"},
                     {"127.0.0.1", "127.0.0.53"},
                     {"2001:db8::7", "2001:4860:4860::8888"},
                     {"::ffff:203.0.113.7", "::ffff:1.1.1.1"}};
  std::vector<StashPair> kept;
  for (const auto& c : cases) {
    CAPTURE(c.local);
    kept.push_back(checked_pair(stash, request(ip(c.local, 5353), ip(c.peer, 53), SOCK_DGRAM)));
    put(kept.back().relay, "a");
    put(kept.back().relay, "bc");
    CHECK(receive(kept.back().program) == "a");
    CHECK(receive(kept.back().program) == "bc");
  }
  // Many connected to different peers from one address and port.
  for (int i = 1; i < 100; ++i) {
    kept.push_back(checked_pair(stash, request(ip("203.0.113.7", 443), ip("198.51.100.1", i), SOCK_DGRAM)));
  }
  for (const StashPair& p : kept) {
    put(p.program, peer_name(p.program));
    CHECK(receive(p.relay) == peer_name(p.program));
  }
  CHECK(stash.rooms() == 1);
}

TEST_CASE("what cannot be made is refused, quickly and without a trace") {
  own_namespace();
  const size_t before = open_descriptors();
  {
    Stash stash;
    REQUIRE(stash.open() == 0);
    const size_t opened = open_descriptors();
    const StashAddress good = ip("192.0.2.1", 1), none;
    StashPair p;
    StashRequest r = request(good, none);
    CHECK(stash.pair(r, &p) == EINVAL);
    CHECK(stash.pair(request(good, good), &p) == EOPNOTSUPP);
    CHECK(stash.pair(request(good, ip("0.0.0.0", 5)), &p) == EINVAL);
    CHECK(stash.pair(request(ip("0.0.0.0", 5), good), &p) == EINVAL);
    CHECK(stash.pair(request(good, ip("192.0.2.2", 0)), &p) == EINVAL);
    CHECK(stash.pair(request(good, ip("2001:db8::1", 5)), &p) == EINVAL);
    CHECK(stash.pair(request(ip("::", 5), ip("2001:db8::1", 5)), &p) == EINVAL);
    CHECK(stash.pair(request(good, ip("255.255.255.255", 5)), &p) != 0);
    CHECK(stash.pair(request(good, ip("224.0.0.1", 5)), &p) != 0);
    CHECK(stash.pair(request(ip("2001:db8::1", 5), ip("ff02::1", 5)), &p) != 0);
    CHECK(stash.pair(request(good, ip("192.0.2.2", 5), SOCK_SEQPACKET), &p) == ESOCKTNOSUPPORT);
    CHECK(stash.pair(request(none, unix_name("/x"), SOCK_RAW), &p) == ESOCKTNOSUPPORT);
    CHECK(stash.pair(request(none, unix_name("/")), &p) == EINVAL);
    CHECK(stash.pair(request(none, unix_name("/x/"s)), &p) != 0);
    CHECK(stash.pair(request(unix_name("/x"), unix_name("/x")), &p) == EINVAL);
    r = request(good, ip("192.0.2.2", 5));
    r.local.size = 1000;
    CHECK(stash.pair(r, &p) == EINVAL);
    r.local.size = 3;
    CHECK(stash.pair(r, &p) == EINVAL);
    r.family = 99;
    r.local.size = sizeof(sockaddr_in);
    CHECK(stash.pair(r, &p) == EAFNOSUPPORT);
    StashAddress endless = unix_name("");
    std::memset(reinterpret_cast<char*>(&endless.storage) + 2, 'x', 120);
    endless.size = 122;
    CHECK(stash.pair(request(none, endless), &p) == EINVAL);
    CHECK(!p.program);
    checked_pair(stash, request(good, ip("192.0.2.2", 5)));
    CHECK(open_descriptors() <= opened + 32);  // rooms have two each
  }
  CHECK(open_descriptors() == before);
  Stash unopened;
  StashPair p;
  CHECK(unopened.pair(request(ip("192.0.2.1", 1), ip("192.0.2.2", 2)), &p) == ESRCH);
}

TEST_CASE("a program that goes on with its end inside the stash cannot take another connection's end") {
  own_namespace();
  Stash stash;
  REQUIRE(stash.open() == 0);
  const StashAddress local = ip("192.0.2.1", 80), peer = ip("192.0.2.2", 4000), other = ip("192.0.2.3", 80);
  const sockaddr nothing{};
  static_assert(AF_UNSPEC == 0);
  // It disconnects, and calls the one that still listens for the relay.
  const StashPair caller = checked_pair(stash, request(other, ip("192.0.2.4", 9)));
  checked_pair(stash, request(ip("192.0.2.5", 80), peer));
  REQUIRE(connect(caller.program.get(), &nothing, sizeof nothing) == 0);
  REQUIRE(connect(caller.program.get(), peer.get(), peer.size) == 0);
  checked_pair(stash, request(local, peer));
  CHECK(stash.rooms() == 1);
  // It disconnects, and listens where the relay's end of another connection is to be.
  const StashPair listener = checked_pair(stash, request(local, other));
  REQUIRE(connect(listener.program.get(), &nothing, sizeof nothing) == 0);
  REQUIRE(listen(listener.program.get(), 5) == 0);
  checked_pair(stash, request(peer, local));
}

TEST_CASE("sockets outlive their stash, and pairs are made from any thread") {
  own_namespace();
  constexpr int kThreads = 4, kEach = 100;
  std::vector<StashPair> pairs(kThreads * kEach);
  const auto peer = [](size_t i) { return ip("192.0.2.2", 1000 + static_cast<int>(i)); };
  {
    Stash stash;
    REQUIRE(stash.open() == 0);
    std::vector<std::thread> threads;
    for (size_t t = 0; t < kThreads; ++t) {
      threads.emplace_back([&, t] {
        for (size_t i = t; i < pairs.size(); i += kThreads) {
          stash.pair(request(ip("192.0.2.1", 80), peer(i)), &pairs[i]);
        }
      });
    }
    for (std::thread& t : threads) t.join();
  }
  for (size_t i = 0; i < pairs.size(); ++i) {
    REQUIRE(pairs[i].program);
    CHECK(own_name(pairs[i].program) == bytes(ip("192.0.2.1", 80)));
    CHECK(peer_name(pairs[i].program) == bytes(peer(i)));
    put(pairs[i].relay, std::to_string(i));
    CHECK(receive(pairs[i].program) == std::to_string(i));
  }
}
