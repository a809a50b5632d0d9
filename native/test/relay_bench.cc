// How fast a relay is: throughput and round trips of a connection through it, beside a direct connection over the loopback.
// Nothing is checked, and ctest does not run it; prints a few lines. Everything runs in this one process, on the processors there are.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstdio>

#include "test/relay_traffic.h"

using namespace virt;
using namespace virt::test;

namespace {

constexpr uint64_t kBytes = uint64_t{2} << 30;
constexpr int kRounds = 20'000;

double megabytes_a_second(int from, int to) {
  const int64_t begin = monotonic_ns();
  std::thread writer([from] {
    const std::vector<char> chunk(256 << 10, 'x');
    for (uint64_t sent = 0; sent < kBytes;) {
      const ssize_t n = send(from, chunk.data(), chunk.size(), MSG_NOSIGNAL);
      if (n <= 0) return;
      sent += static_cast<uint64_t>(n);
    }
    shutdown(from, SHUT_WR);
  });
  std::vector<char> chunk(256 << 10);
  while (recv(to, chunk.data(), chunk.size(), 0) > 0) {
  }
  writer.join();
  return static_cast<double>(kBytes) / (static_cast<double>(monotonic_ns() - begin) / 1e9) / 1e6;
}

// The median and the 99th percentile, microseconds.
std::pair<double, double> round_trip(int a, int b) {
  std::thread echo([b] {
    char c[64];
    for (ssize_t n; (n = recv(b, c, sizeof c, 0)) > 0;)
      (void)!send(b, c, static_cast<size_t>(n), MSG_NOSIGNAL);
  });
  std::vector<int64_t> times;
  char c[64] = "";
  for (int i = 0; i < kRounds; ++i) {
    const int64_t begin = monotonic_ns();
    (void)!send(a, c, sizeof c, MSG_NOSIGNAL);
    (void)!recv(a, c, sizeof c, MSG_WAITALL);
    times.push_back(monotonic_ns() - begin);
  }
  shutdown(a, SHUT_WR);
  echo.join();
  std::sort(times.begin(), times.end());
  return {static_cast<double>(times[kRounds / 2]) / 1e3,
          static_cast<double>(times[kRounds * 99 / 100]) / 1e3};
}

void no_delay(const UniqueFd& fd) {
  const int on = 1;
  setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

}  // namespace

TEST_CASE("what a relay costs") {
  Pair direct = tcp_pair();
  no_delay(direct.a);
  no_delay(direct.b);
  const auto [direct_us, direct_99] = round_trip(direct.a.get(), direct.b.get());
  direct = tcp_pair();
  const double direct_mb = megabytes_a_second(direct.a.get(), direct.b.get());
  Hosts hosts;
  hosts.add(2, tcp_pair);
  hosts.start_and_connect();
  for (auto* ends : {&hosts.outside, &hosts.program}) {
    for (const UniqueFd& fd : *ends) no_delay(fd);
  }
  const auto [relayed_us, relayed_99] = round_trip(hosts.program[0].get(), hosts.outside[0].get());
  const double relayed_mb = megabytes_a_second(hosts.program[1].get(), hosts.outside[1].get());
  std::printf("throughput MB/s: direct %.0f, relayed %.0f (%.2f)\n", direct_mb, relayed_mb,
              relayed_mb / direct_mb);
  std::printf("round trip us: direct %.1f (99%%: %.1f), relayed %.1f (99%%: %.1f) (%.2f)\n", direct_us,
              direct_99, relayed_us, relayed_99, relayed_us / direct_us);
}
