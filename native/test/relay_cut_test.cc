// relay: the tunnel may be cut anywhere, and for how long.
#include <doctest/doctest.h>

#include "relay/relay.h"
#include "test/relay_traffic.h"

using namespace virt;
using namespace virt::test;

TEST_CASE("a tunnel that is cut hundreds of times loses and doubles nothing") {
  const size_t before = open_descriptors();
  {
    Hosts hosts;
    hosts.add(25, tcp_pair);
    hosts.add(25, [] { return unix_pair(); });
    Random random(3);
    Proxy proxy(hosts.listener, [&random] {
      // Some within the greetings, most in the midst of data.
      const size_t below = random.chance(8) ? 600 : 100'000;
      return Proxy::Fate{random.below(below), UINT64_MAX};
    });
    hosts.start(&proxy.listener);
    Traffic traffic(3);
    traffic.both_ways(hosts, 40'000);
    traffic.run();
    CHECK(wait_until([&] {
      return hosts.holder->status().over == Over::ended && hosts.relay->status().over == Over::ended;
    }));
    CHECK(proxy.tunnels > 100);
    CHECK(hosts.relay->status().reset == 0);
    CHECK(hosts.holder->status().reset == 0);
    MESSAGE(proxy.tunnels.load(), " tunnels");
  }
  CHECK(open_descriptors() == before);
}

TEST_CASE("resets and ends come through once when the tunnel is cut") {
  Hosts hosts;
  constexpr size_t kCount = 60;
  hosts.add(kCount, tcp_pair);
  Random random(4);
  Proxy proxy(hosts.listener, [&random] { return Proxy::Fate{random.below(8'000), UINT64_MAX}; });
  hosts.start(&proxy.listener);
  for (size_t i = 0; i < kCount; ++i) {
    write_text(hosts.outside[i].get(), "last");
    if (i % 3 == 0) {
      CHECK(read_text(hosts.program[i].get(), 4) == "last");
      reset_socket(hosts.outside[i]);
    } else if (i % 3 == 1) {
      hosts.outside[i].reset();
    } else {
      REQUIRE(send(hosts.outside[i].get(), "!", 1, MSG_OOB) == 1);
    }
  }
  for (size_t i = 0; i < kCount; ++i) {
    const int program = hosts.program[i].get();
    char c = 0;
    if (i % 3 == 0) {
      CHECK(read_from(program, &c, 1) == -ECONNRESET);
      continue;
    }
    CHECK(read_text(program, 4) == "last");
    if (i % 3 == 1) {
      CHECK(read_from(program, &c, 1) == 0);
    } else {
      CHECK(read_from(program, &c, 1, MSG_OOB) == 1);
      CHECK(c == '!');
    }
    hosts.program[i].reset();
  }
}

TEST_CASE("cut for too long: everybody is reset") {
  Options options;
  options.cut_limit_ms = 300;
  Hosts hosts(options);
  hosts.add(3, tcp_pair);
  Proxy proxy(hosts.listener, [] { return Proxy::Fate{}; });
  hosts.start(&proxy.listener);
  write_text(hosts.outside[0].get(), "hello");
  CHECK(read_text(hosts.program[0].get(), 5) == "hello");
  proxy.refuses = true;
  for (const auto* ends : {&hosts.outside, &hosts.program}) {
    for (const UniqueFd& fd : *ends) {
      char c;
      CHECK(read_from(fd.get(), &c, 1) == -ECONNRESET);
    }
  }
  CHECK(wait_until([&] { return hosts.relay->status().over == Over::limit_passed; }));
  CHECK(wait_until([&] { return hosts.holder->status().over == Over::limit_passed; }));
  CHECK(hosts.holder->status().reset == 3);
}

TEST_CASE("a holder that was never dialled waits, and leaves the sockets alone") {
  Options options;
  options.cut_limit_ms = 1;
  Relay holder(Role::holder, key_of(7), options);
  Pair pair = tcp_pair();
  const UniqueFd same(fcntl(pair.b.get(), F_DUPFD_CLOEXEC, 0));
  REQUIRE(holder.add(1, std::move(pair.b), Kind::stream) == 0);
  REQUIRE(holder.start() == 0);
  write_text(pair.a.get(), "hello");
  // Each wakes the thread, which looks what time it is.
  for (uint32_t id = 2; id < 22; ++id) {
    REQUIRE(holder.add(id, unix_pair().a, Kind::stream) == 0);
    sleep_us(1'000);
  }
  CHECK(holder.status().over == Over::no);
  CHECK(holder.status().streams == 21);
  CHECK(read_text(same.get(), 5) == "hello");
  int in_line = 1;
  socklen_t size = sizeof in_line;
  REQUIRE(getsockopt(same.get(), SOL_SOCKET, SO_OOBINLINE, &in_line, &size) == 0);
  CHECK(in_line == 0);
}
