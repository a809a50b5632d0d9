// Traffic for the relay's tests, which knows what it has to see, and a proxy that cuts and damages tunnels.
#pragma once

#include <atomic>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "test/relay_support.h"

namespace virt::test {

// Bytes that are known by their position: a prime number of them, again and again, from a place that the flow chooses.
class Pattern {
 public:
  static constexpr size_t kPeriod = 65521;
  Pattern() {
    Random random(11);
    bytes_.resize(2 * kPeriod);
    for (size_t i = 0; i < kPeriod; ++i) bytes_[i] = bytes_[i + kPeriod] = static_cast<char>(random.next());
  }
  // Up to kPeriod bytes.
  [[nodiscard]] const char* at(uint64_t flow, uint64_t position) const {
    return bytes_.data() + (flow * 7919 + position) % kPeriod;
  }

 private:
  std::vector<char> bytes_;
};

// Data through connections both ways, in chunks of random sizes, compared byte by byte where it arrives.
class Traffic {
 public:
  explicit Traffic(uint64_t seed) : random_(seed) {}
  // Writes `bytes` to one end, with its end after it, and expects them at the other.
  void flow(int from, int to, uint64_t bytes) {
    flows_.push_back({from, to, flows_.size() + 1, bytes});
    for (const int fd : {from, to}) fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
  }
  void both_ways(Hosts& hosts, uint64_t bytes) {
    for (size_t i = 0; i < hosts.outside.size(); ++i) {
      flow(hosts.outside[i].get(), hosts.program[i].get(), bytes);
      flow(hosts.program[i].get(), hosts.outside[i].get(), bytes);
    }
  }
  // Some of it. False: all is done.
  bool step() {
    bool all = true, any = false;
    for (Flow& f : flows_) {
      any = write_some(f) || any;
      any = read_some(f) || any;
      all = all && f.ended;
    }
    if (!any && !all) sleep_us(100);
    return !all;
  }
  void run(int64_t patience_ns = kPatienceNs) {
    for (int64_t end = monotonic_ns() + patience_ns; step();) {
      REQUIRE_MESSAGE(monotonic_ns() < end, progress());
    }
  }
  [[nodiscard]] uint64_t arrived() const {
    uint64_t n = 0;
    for (const Flow& f : flows_) n += f.read;
    return n;
  }
  [[nodiscard]] std::string progress() const {
    std::string text;
    for (const Flow& f : flows_) {
      if (!f.ended)
        text += std::to_string(f.id) + ": " + std::to_string(f.written) + "/" + std::to_string(f.read) + " ";
      if (text.size() > 300) break;
    }
    return text;
  }
  // A program is moved to another descriptor.
  void replace(int from, int to) {
    for (Flow& f : flows_) {
      if (f.from == from) f.from = to;
      if (f.to == from) f.to = to;
    }
  }

 private:
  struct Flow {
    int from, to;
    uint64_t id, bytes, written = 0, read = 0;
    bool shut = false, ended = false;
  };
  bool write_some(Flow& f) {
    if (f.shut) return false;
    if (f.written == f.bytes) {
      REQUIRE(shutdown(f.from, SHUT_WR) == 0);
      f.shut = true;
      return true;
    }
    const size_t chunk =
        std::min<uint64_t>(1 + random_.below(random_.chance(4) ? 60'000 : 900), f.bytes - f.written);
    const ssize_t n = send(f.from, pattern_.at(f.id, f.written), chunk, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0) REQUIRE(errno == EAGAIN);
    if (n > 0) f.written += static_cast<uint64_t>(n);
    return n > 0;
  }
  bool read_some(Flow& f) {
    if (f.ended) return false;
    char buffer[Pattern::kPeriod];
    const size_t chunk = 1 + random_.below(sizeof buffer - 1);
    const ssize_t n = recv(f.to, buffer, chunk, MSG_DONTWAIT);
    if (n < 0) {
      REQUIRE(errno == EAGAIN);
      return false;
    }
    if (n == 0) {
      REQUIRE(f.read == f.bytes);
      f.ended = true;
      return true;
    }
    REQUIRE(f.read + static_cast<uint64_t>(n) <= f.bytes);
    REQUIRE(std::memcmp(buffer, pattern_.at(f.id, f.read), static_cast<size_t>(n)) == 0);
    f.read += static_cast<uint64_t>(n);
    return true;
  }

  Pattern pattern_;
  Random random_;
  std::vector<Flow> flows_;
};

// Stands between relay and holder. What it does to a tunnel is decided by `fate`, for each tunnel and direction: after how many
// bytes it is cut, or a bit of it flipped.
class Proxy {
 public:
  struct Fate {
    uint64_t cut_after = UINT64_MAX, flip_after = UINT64_MAX;
  };
  Proxy(const TcpListener& to, std::function<Fate()> fate) : to_(to), fate_(std::move(fate)) {
    thread_ = std::thread([this] { run(); });
  }
  ~Proxy() {
    stop_ = true;
    thread_.join();
  }
  Proxy(const Proxy&) = delete;
  Proxy& operator=(const Proxy&) = delete;
  TcpListener listener;
  std::atomic<bool> refuses = false;  // cuts and takes nobody
  std::atomic<unsigned> tunnels = 0;

 private:
  void run() {
    while (!stop_) {
      pollfd p{listener.fd.get(), POLLIN, 0};
      if (poll(&p, 1, 1) <= 0) continue;
      const UniqueFd a(accept4(listener.fd.get(), nullptr, nullptr, SOCK_CLOEXEC));
      if (refuses || !a) continue;
      const UniqueFd b(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
      if (connect(b.get(), to_.name(), sizeof to_.address) != 0) continue;
      ++tunnels;
      Fate fates[2] = {fate_(), fate_()};
      bool goes = true;
      while (goes && !stop_ && !refuses) {
        pollfd both[2] = {{a.get(), POLLIN, 0}, {b.get(), POLLIN, 0}};
        if (poll(both, 2, 1) <= 0) continue;
        if (both[0].revents != 0) goes = goes && pass(a.get(), b.get(), fates[0]);
        if (both[1].revents != 0) goes = goes && pass(b.get(), a.get(), fates[1]);
      }
    }
  }
  static bool pass(int from, int to, Fate& fate) {
    char buffer[16 << 10];
    ssize_t n = recv(from, buffer, sizeof buffer, MSG_DONTWAIT);
    if (n <= 0) return n < 0 && errno == EAGAIN;
    auto size = static_cast<uint64_t>(n);
    const bool cut = fate.cut_after < size;
    if (cut) size = fate.cut_after;
    if (fate.flip_after < size) buffer[fate.flip_after] = static_cast<char>(buffer[fate.flip_after] ^ 4);
    if (fate.flip_after != UINT64_MAX) fate.flip_after -= std::min(fate.flip_after, size);
    if (fate.flip_after == 0) fate.flip_after = UINT64_MAX;
    if (fate.cut_after != UINT64_MAX) fate.cut_after -= size;
    for (uint64_t done = 0; done < size;) {
      n = send(to, buffer + done, size - done, MSG_NOSIGNAL);
      if (n <= 0) return false;
      done += static_cast<uint64_t>(n);
    }
    return !cut;
  }

  const TcpListener& to_;
  std::function<Fate()> fate_;
  std::atomic<bool> stop_ = false;
  std::thread thread_;
};

}  // namespace virt::test
