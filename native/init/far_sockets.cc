#include "init/far_sockets.h"

#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "init/high_pids.h"
#include "relay/datagram_stash.h"
#include "sys/clocks.h"

namespace virt::init {
namespace {

constexpr int64_t kPatienceNs = 10'000'000'000;
constexpr int kLookMs = 50;
// One may be a damaged frame.
constexpr uint32_t kMostViolations = 3;

bool address_of(std::string_view bytes, StashAddress* address) {
  if (bytes.size() > sizeof address->storage) return false;
  std::memcpy(&address->storage, bytes.data(), bytes.size());
  address->size = static_cast<socklen_t>(bytes.size());
  return true;
}

// One bound UDP socket, which speaks with anybody.
class BoundEnd : public relay::DatagramEnd {
 public:
  int open(const DatagramSocket& wanted, UniqueFd* program) {
    id_ = wanted.id;
    if (const int error = stash_.open(); error != 0) return error;
    return stash_.make_socket(wanted, program);
  }
  [[nodiscard]] int fd() const override { return stash_.fd(); }
  ssize_t receive(char* payload, char* address, size_t* address_size) override {
    Datagram d;
    if (!stash_.receive(&d)) return -EAGAIN;
    if (d.payload.size() > relay::kDatagramBytes) return -EMSGSIZE;
    std::memcpy(payload, d.payload.data(), d.payload.size());
    std::memcpy(address, &d.remote.storage, d.remote.size);
    *address_size = d.remote.size;
    return static_cast<ssize_t>(d.payload.size());
  }
  bool send(std::string_view address, std::string_view payload) override {
    Datagram d;
    d.socket = id_;
    if (address_of(address, &d.remote)) {
      d.payload = payload;
      (void)stash_.send(d);
    }
    return true;
  }

 private:
  uint32_t id_ = 0;
  DatagramStash stash_;
};

}  // namespace

bool relay_key(std::string_view bytes, relay::Key* key) {
  static_assert(sizeof key->bytes == protocol::kKeyBytes);
  if (bytes.size() != sizeof key->bytes) return false;
  std::memcpy(key->bytes, bytes.data(), bytes.size());
  return true;
}

int FarSockets::open(const protocol::FarPlan& plan) {
  relay::Key k;
  StashAddress address;
  if (!relay_key(plan.key, &k) || !address_of(plan.holder, &address)) return EINVAL;
  relay::Options options;
  if (plan.cut_limit_ms != 0) options.cut_limit_ms = plan.cut_limit_ms;
  cut_limit_ms_ = options.cut_limit_ms;
  relay_ = std::make_unique<relay::Relay>(relay::Role::relay, k, options);
  if (const int error = relay_->dial(address.get(), address.size); error != 0) return error;
  const HighPids high(1);
  return stash_.open();
}

int FarSockets::make(const protocol::FarSocket& socket, UniqueFd* program) {
  StashRequest r;
  r.family = static_cast<int>(socket.family);
  r.type = static_cast<int>(socket.type);
  r.v6_only = socket.v6_only != 0;
  if (!address_of(socket.local, &r.local) || !address_of(socket.peer, &r.peer)) return EINVAL;
  if (r.type == SOCK_DGRAM && r.peer.size == 0) return make_datagrams(socket, program);
  StashPair pair;
  if (const int error = stash_.pair(r, &pair); error != 0) return error;
  const auto kind = r.type == SOCK_DGRAM ? relay::Kind::datagram : relay::Kind::stream;
  if (const int error = relay_->add(socket.id, std::move(pair.relay), kind); error != 0) return error;
  *program = std::move(pair.program);
  return 0;
}

int FarSockets::make_datagrams(const protocol::FarSocket& socket, UniqueFd* program) {
  DatagramSocket wanted;
  wanted.id = socket.id;
  if (!address_of(socket.local, &wanted.local)) return EINVAL;
  wanted.v6_only = socket.v6_only != 0;
  auto end = std::make_unique<BoundEnd>();
  const HighPids high(1);
  if (const int error = end->open(wanted, program); error != 0) return error;
  return relay_->add(socket.id, std::move(end));
}

int FarSockets::begin() {
  const HighPids high(1);
  if (const int error = relay_->start(); error != 0) return error;
  const int error = wait_for_holder();
  // It may have come this very moment.
  if (error != 0 && !relay_->bar(true)) return 0;
  return error;
}

int FarSockets::wait_for_holder() {
  const int64_t end = monotonic_ns() + kPatienceNs;
  for (;;) {
    const relay::Status status = relay_->status();
    if (status.met) return 0;
    if (status.over == relay::Over::replaced) return ESTALE;
    if (status.violations >= kMostViolations || status.other_version) return EACCES;
    if (status.over != relay::Over::no || monotonic_ns() >= end) return ETIMEDOUT;
    wait_for_news();
  }
}

void FarSockets::wait_for_news() {
  pollfd p{relay_->news_fd(), POLLIN, 0};
  uint64_t count;
  if (poll(&p, 1, kLookMs) > 0) (void)!read(p.fd, &count, sizeof count);
}

// A peer that does not read is not waited for for ever: as long as a cut may last.
void FarSockets::finish() {
  relay_->let_go();
  const int64_t end = monotonic_ns() + int64_t{cut_limit_ms_} * 1'000'000;
  while (relay_->status().over == relay::Over::no && monotonic_ns() < end) wait_for_news();
}

}  // namespace virt::init
