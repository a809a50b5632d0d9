// relay: frozen into bytes, it goes on elsewhere.
#include <doctest/doctest.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/wait.h>

#include <cstdio>

#include "relay/relay.h"
#include "test/relay_traffic.h"

using namespace virt;
using namespace virt::test;

namespace {

// In a network of our own, where the kernel gives back what a socket has not sent. 0, or what went wrong, printed.
int move_with_full_queues() {
  if (unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0) {
    std::puts("no network namespace can be had");
    return 77;
  }
  ifreq lo{};
  std::strcpy(lo.ifr_name, "lo");
  lo.ifr_flags = IFF_UP;
  const UniqueFd control(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  REQUIRE(ioctl(control.get(), SIOCSIFFLAGS, &lo) == 0);
  Hosts hosts;
  hosts.add(3, tcp_pair);
  hosts.start_and_connect();
  // Nobody reads what the outside sends: it fills the program's queue, our socket's and the windows.
  const Pattern pattern;
  constexpr uint64_t kTotal = 20 << 20;
  uint64_t written = 0;
  const auto write_more = [&] {
    const size_t most = std::min<uint64_t>(Pattern::kPeriod, kTotal - written);
    const ssize_t n = send(hosts.outside[0].get(), pattern.at(1, written), most, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n > 0) written += static_cast<uint64_t>(n);
    return n > 0;
  };
  for (int idle = 0; idle < 100;) {
    idle = write_more() ? 0 : idle + 1;
    if (idle > 0) sleep_us(1000);
  }
  // The other one is full and has ended.
  const std::string farewell(3 << 20, 'f');
  std::thread writer([&] {
    (void)!send(hosts.outside[1].get(), farewell.data(), farewell.size(), MSG_NOSIGNAL);
    shutdown(hosts.outside[1].get(), SHUT_WR);
  });
  writer.join();
  // Of the third nothing is left but what its program has not taken: the holder is done with it.
  const int little = 4096;
  setsockopt(hosts.program[2].get(), SOL_SOCKET, SO_RCVBUF, &little, sizeof little);
  const std::string last(300'000, 'l');
  write_text(hosts.outside[2].get(), last);
  shutdown(hosts.outside[2].get(), SHUT_WR);
  shutdown(hosts.program[2].get(), SHUT_WR);
  if (!wait_until([&] { return hosts.holder->status().streams == 2; })) {
    std::puts("the holder still has all three");
    return 1;
  }
  std::string state;
  if (const int error = hosts.relay->freeze(&state); error != 0) {
    std::printf("freeze: %s\n", std::strerror(error));
    return 1;
  }
  std::unique_ptr<Relay> moved;
  REQUIRE(Relay::thaw(state, key_of(7), hosts.options, &moved) == 0);
  std::vector<UniqueFd> programs;
  for (size_t i = 0; i < hosts.program.size(); ++i) {
    int size = 0;
    REQUIRE(ioctl(hosts.program[i].get(), SIOCINQ, &size) == 0);
    std::vector<char> queue(static_cast<size_t>(size) + 1);
    REQUIRE(recv(hosts.program[i].get(), queue.data(), queue.size(), MSG_PEEK) == size);
    Pair pair = tcp_pair();
    for (const UniqueFd* fd : {&pair.a, &pair.b}) {
      const int large = 16 << 20;
      setsockopt(fd->get(), SOL_SOCKET, SO_RCVBUFFORCE, &large, sizeof large);
      setsockopt(fd->get(), SOL_SOCKET, SO_SNDBUFFORCE, &large, sizeof large);
    }
    fcntl(pair.b.get(), F_SETFL, O_NONBLOCK);
    if (send(pair.b.get(), queue.data(), static_cast<size_t>(size), MSG_NOSIGNAL) != size) {
      std::printf("a queue of %d bytes does not fit\n", size);
      return 1;
    }
    REQUIRE(moved->add(static_cast<uint32_t>(i + 1), std::move(pair.b), Kind::stream) == 0);
    programs.push_back(std::move(pair.a));
  }
  hosts.relay = std::move(moved);
  REQUIRE(hosts.relay->dial(hosts.listener.name(), sizeof hosts.listener.address) == 0);
  REQUIRE(hosts.relay->start() == 0);
  std::vector<char> buffer(Pattern::kPeriod);
  for (uint64_t read = 0; read < kTotal;) {
    while (written < kTotal && write_more()) {
    }
    const ssize_t n = recv(programs[0].get(), buffer.data(), buffer.size(), 0);
    if (n <= 0 || std::memcmp(buffer.data(), pattern.at(1, read), static_cast<size_t>(n)) != 0) {
      std::printf("wrong at %llu\n", static_cast<unsigned long long>(read));
      return 1;
    }
    read += static_cast<uint64_t>(n);
  }
  for (const auto& [program, expected] : {std::pair{1, &farewell}, std::pair{2, &last}}) {
    std::string rest;
    for (ssize_t n = 0;
         (n = recv(programs[static_cast<size_t>(program)].get(), buffer.data(), buffer.size(), 0)) != 0;) {
      if (n < 0) {
        std::printf("%d: %s after %zu bytes\n", program, std::strerror(errno), rest.size());
        return 1;
      }
      rest.append(buffer.data(), static_cast<size_t>(n));
    }
    if (rest != *expected) {
      std::printf("%d: %zu bytes of %zu before the end\n", program, rest.size(), expected->size());
      return 1;
    }
  }
  return 0;
}

}  // namespace

TEST_CASE("frozen at random moments, it goes on elsewhere or where it was") {
  const size_t before = open_descriptors();
  {
    Hosts hosts;
    hosts.add(6, [] { return unix_pair(); });
    hosts.start_and_connect();
    Random random(9);
    Traffic traffic(9);
    traffic.both_ways(hosts, 3'000'000);
    int moves = 0;
    for (uint64_t next = 500'000; traffic.step();) {
      if (traffic.arrived() < next) continue;
      next = traffic.arrived() + 300'000 + random.below(1'500'000);
      std::string state;
      REQUIRE(hosts.relay->freeze(&state) == 0);
      if (random.chance(3)) {
        REQUIRE(hosts.relay->go_on() == 0);
        continue;
      }
      ++moves;
      // The program's end stays: what it has not read yet would be in the pod's image. Its relay's end is another, joined to
      // the former program end by moving what is queued there.
      std::unique_ptr<Relay> moved;
      REQUIRE(Relay::thaw(state, key_of(7), hosts.options, &moved) == 0);
      for (size_t i = 0; i < hosts.program.size(); ++i) {
        Pair pair = unix_pair();
        fcntl(pair.a.get(), F_SETFL, O_NONBLOCK);
        // A rebuilt socket has its queue, and its ends of directions.
        char queued[1 << 18];
        int size = 1 << 20;
        setsockopt(pair.b.get(), SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
        ssize_t n;
        while ((n = recv(hosts.program[i].get(), queued, sizeof queued, MSG_DONTWAIT)) > 0) {
          REQUIRE(send(pair.b.get(), queued, static_cast<size_t>(n), MSG_NOSIGNAL) == n);
        }
        traffic.replace(hosts.program[i].get(), pair.a.get());
        if (const int error = moved->add(static_cast<uint32_t>(i + 1), std::move(pair.b), Kind::stream);
            error != 0) {
          REQUIRE(error == EEXIST);  // it had ended
        }
        hosts.program[i] = std::move(pair.a);
      }
      hosts.relay = std::move(moved);
      REQUIRE(hosts.relay->dial(hosts.listener.name(), sizeof hosts.listener.address) == 0);
      REQUIRE(hosts.relay->start() == 0);
    }
    CHECK(moves >= 3);
    CHECK(wait_until([&] { return hosts.holder->status().over == Over::ended; }));
    CHECK(hosts.holder->status().reset == 0);
  }
  CHECK(open_descriptors() == before);
}

TEST_CASE("frozen while nobody reads: what the kernel has not sent comes along") {
  Child child(move_with_full_queues);
  const int status = child.wait();
  if (WIFEXITED(status) && WEXITSTATUS(status) == 77) return;
  CHECK(status == 0);
}

TEST_CASE("a state that is damaged is taken or refused, never more") {
  Hosts hosts;
  hosts.add(3, [] { return unix_pair(); });
  hosts.start_and_connect();
  for (const auto& fd : hosts.program) REQUIRE(send(fd.get(), "hello", 5, 0) == 5);
  std::string state;
  REQUIRE(hosts.relay->freeze(&state) == 0);
  int taken = 0, refused = 0;
  for (uint64_t seed = 1; seed <= 3'000; ++seed) {
    Random random(seed);
    std::unique_ptr<Relay> relay;
    const int error = Relay::thaw(damaged(state, random), key_of(7), {}, &relay);
    REQUIRE((error == 0 || error == EINVAL));
    ++(error == 0 ? taken : refused);
  }
  CHECK(taken > 0);
  CHECK(refused > 0);
}
