// A relay's connections as bytes, and back.
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <cerrno>
#include <ctime>

#include "relay/relay.h"
#include "sys/clocks.h"
#include "sys/wire.h"

namespace virt::relay {
namespace {

constexpr uint32_t kStateVersion = 2;
constexpr int64_t kMs = 1'000'000;
// Longer than a kernel delays an acknowledgement (tcp(7): up to 200 ms): what is unacknowledged then was not taken.
constexpr int64_t kSettledNs = 250 * kMs;
constexpr long kLookNs = 2 * kMs;

}  // namespace

int Relay::freeze(std::string* state, uint32_t* cause) {
  stop_thread();
  const std::lock_guard lock(mutex_);
  if (!started_) return EINVAL;
  if (status_.over == Over::limit_passed || status_.over == Over::replaced) return ESHUTDOWN;
  forget_clients();
  const auto fails = [cause](uint32_t id, int error) {
    if (cause != nullptr) *cause = id;
    return error;
  };
  for (const auto& [id, channel] : streams_) {
    if (channel && seen_peer_ && !channel->drain()) return fails(id, ENOBUFS);
  }
  for (const auto& [id, channel] : datagrams_) {
    if (channel && seen_peer_) channel->drain(scratch_.get());
  }
  wait_until_settled();
  wire::Writer out;
  out.number(kStateVersion);
  out.number(epoch_);
  out.number(static_cast<uint8_t>(seen_peer_));
  out.number(opened_);
  out.number(static_cast<uint32_t>(streams_.size()));
  for (const auto& [id, channel] : streams_) {
    out.number(id);
    out.number(static_cast<uint8_t>(channel && !channel->was_reset()));
    if (channel && !channel->was_reset() && !channel->encode(&out)) return fails(id, EPERM);
    if (!is_client(id)) continue;
    out.number(channel ? channel->listener : 0);
    out.number(static_cast<uint8_t>(channel && channel->is_connecting()));
  }
  out.number(static_cast<uint32_t>(datagrams_.size()));
  for (const auto& [id, channel] : datagrams_) {
    out.number(id);
    out.number(static_cast<uint8_t>(channel != nullptr));
    if (channel) channel->encode(&out);
  }
  *state = out.bytes();
  return 0;
}

// Waits until every socket's peer has taken what it can.
void Relay::wait_until_settled() const {
  std::vector<const Channel*> waiting;
  for (const auto& [id, channel] : streams_) {
    if (channel && channel->unsent() > 0) waiting.push_back(channel.get());
  }
  const auto total = [&waiting] {
    size_t sum = 0;
    for (const Channel* channel : waiting) sum += channel->unsent();
    return sum;
  };
  size_t before = total();
  for (int64_t since = monotonic_ns(); before > 0 && monotonic_ns() - since < kSettledNs;) {
    const timespec moment{0, kLookNs};
    nanosleep(&moment, nullptr);
    const size_t now = total();
    if (now != before) since = monotonic_ns();
    before = now;
  }
}

int Relay::put_back(uint32_t id, std::string_view unread) {
  const std::lock_guard lock(mutex_);
  const auto at = streams_.find(id);
  if (at == streams_.end() || !at->second) return ENOENT;
  return at->second->put_back(unread) ? 0 : EINVAL;
}

bool Relay::leave() {
  constexpr int kPatienceMs = 1000;
  const std::lock_guard lock(mutex_);
  if (running_ || !is_connected()) return false;
  Tunnel& tunnel = current_->tunnel;
  tunnel.put({Type::leave, Mark::none, 0, 0, 0, 0, 0}, nullptr);
  tunnel.flush();
  const int64_t end = monotonic_ns() + kPatienceMs * kMs;
  while (tunnel.waits() && tunnel.state() == TunnelState::open && monotonic_ns() < end) {
    pollfd p{tunnel.fd(), POLLOUT, 0};
    if (poll(&p, 1, kPatienceMs) > 0) tunnel.on_writable();
  }
  // Bytes that came from the holder meanwhile would make closing a reset, and that may overtake what was sent.
  const bool told = !tunnel.waits() && tunnel.state() == TunnelState::open;
  shutdown(tunnel.fd(), SHUT_WR);
  char unheard[4096];
  for (;;) {
    pollfd p{tunnel.fd(), POLLIN, 0};
    if (monotonic_ns() >= end || poll(&p, 1, kPatienceMs) <= 0) break;
    const ssize_t n = recv(tunnel.fd(), unheard, sizeof unheard, MSG_DONTWAIT);
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) break;
  }
  return told;
}

int Relay::thaw(std::string_view state, const Key& key, Options options, std::unique_ptr<Relay>* relay) {
  wire::Reader in(state);
  if (in.number<uint32_t>() != kStateVersion) return EINVAL;
  auto made = std::make_unique<Relay>(Role::relay, key, options);
  const auto epoch = in.number<uint64_t>();
  if (epoch == 0 || epoch >= UINT64_MAX / 2) return EINVAL;
  made->epoch_ = epoch + 1;
  made->seen_peer_ = in.number<uint8_t>() != 0;
  made->opened_ = in.number<uint64_t>();
  const auto streams = in.number<uint32_t>();
  for (uint32_t i = 0; i < streams; ++i) {
    const auto id = in.number<uint32_t>();
    const bool lives = in.number<uint8_t>() != 0;
    const auto [at, is_new] = made->streams_.try_emplace(id);
    if (!in.ok() || !is_new) return EINVAL;
    if (lives) {
      at->second = std::make_unique<Channel>(id, made->options_.window_bytes);
      if (!at->second->decode(&in)) return EINVAL;
      ++made->living_streams_;
    }
    if (!is_client(id)) continue;
    const auto listener = in.number<uint32_t>();
    const bool to_connect = in.number<uint8_t>() != 0;
    if (!lives) {
      made->ended_clients_.push_back(id);
      continue;
    }
    at->second->listener = listener;
    at->second->to_connect = to_connect;
    ++made->clients_;
  }
  const auto datagrams = in.number<uint32_t>();
  for (uint32_t i = 0; i < datagrams; ++i) {
    const auto id = in.number<uint32_t>();
    const bool lives = in.number<uint8_t>() != 0;
    const auto [at, is_new] = made->datagrams_.try_emplace(id);
    if (!in.ok() || !is_new) return EINVAL;
    if (!lives) continue;
    at->second = std::make_unique<DatagramChannel>(id);
    if (!at->second->decode(&in)) return EINVAL;
    ++made->living_datagrams_;
  }
  if (!in.done()) return EINVAL;
  *relay = std::move(made);
  return 0;
}

}  // namespace virt::relay
