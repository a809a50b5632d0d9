#include "init/far_sockets.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "init/high_pids.h"
#include "relay/datagram_stash.h"
#include "sys/clocks.h"
#include "sys/memory_file.h"

namespace virt::init {
namespace {

constexpr int64_t kPatienceNs = 10'000'000'000;
constexpr int kLookMs = 50;
// One may be a damaged frame.
constexpr uint32_t kMostViolations = 3;
constexpr size_t kMostHolders = 64, kMostStateBytes = size_t{1} << 30;

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

bool leads(relay::Relay& relay) {
  const relay::Status s = relay.status();
  return s.over == relay::Over::no && s.streams + s.datagrams > 0;
}

}  // namespace

bool relay_key(std::string_view bytes, relay::Key* key) {
  static_assert(sizeof key->bytes == protocol::kKeyBytes);
  if (bytes.size() != sizeof key->bytes) return false;
  std::memcpy(key->bytes, bytes.data(), bytes.size());
  return true;
}

int FarSockets::open(const protocol::FarPlan& plan, int state) {
  relay::Key key;
  StashAddress address;
  if (!relay_key(plan.key, &key) || !address_of(plan.holder, &address)) return EINVAL;
  if (throughs_.empty()) {
    const HighPids high(1);
    if (const int error = stash_.open(); error != 0) return error;
  }
  Through t;
  t.key = plan.key;
  t.holder = plan.holder;
  relay::Options options;
  if (plan.cut_limit_ms != 0) options.cut_limit_ms = plan.cut_limit_ms;
  t.cut_limit_ms = options.cut_limit_ms;
  t.thawed = state >= 0;
  if (t.thawed) {
    std::string bytes;
    if (const int error = read_memory_file(state, kMostStateBytes, &bytes); error != 0) return error;
    if (const int error = relay::Relay::thaw(bytes, key, options, &t.relay); error != 0) return error;
  } else {
    t.relay = std::make_unique<relay::Relay>(relay::Role::relay, key, options);
  }
  if (const int error = t.relay->dial(address.get(), address.size); error != 0) return error;
  throughs_.push_back(std::move(t));
  return 0;
}

int FarSockets::make(const protocol::FarPlan& plan, int state, int unread_file,
                     std::vector<UniqueFd>* programs) {
  if (plan.through > throughs_.size() || throughs_.size() > kMostHolders) return EINVAL;
  if (plan.through == throughs_.size()) {
    if (const int error = open(plan, state); error != 0) return error;
  }
  std::string bytes;
  if (unread_file >= 0) {
    if (const int error = read_memory_file(unread_file, SIZE_MAX, &bytes); error != 0) return error;
  }
  std::string_view left = bytes;
  Through& through = throughs_[plan.through];
  for (const protocol::FarSocket& socket : plan.sockets) {
    UniqueFd program;
    if (socket.unread_bytes > left.size()) return EINVAL;
    const std::string_view unread = left.substr(0, socket.unread_bytes);
    left.remove_prefix(unread.size());
    if (const int error = make_one(through, socket, unread, &program); error != 0) return error;
    struct stat st {};
    if (fstat(program.get(), &st) != 0) return errno;
    through.sockets.emplace_back(socket.id, st.st_ino);
    programs->push_back(std::move(program));
  }
  return 0;
}

int FarSockets::make_one(Through& through, const protocol::FarSocket& socket, std::string_view unread,
                         UniqueFd* program) {
  StashRequest r;
  r.family = static_cast<int>(socket.family);
  r.type = static_cast<int>(socket.type);
  r.v6_only = socket.v6_only != 0;
  if (!address_of(socket.local, &r.local) || !address_of(socket.peer, &r.peer)) return EINVAL;
  if (r.type == SOCK_DGRAM && r.peer.size == 0) return make_datagrams(*through.relay, socket, program);
  StashPair pair;
  if (const int error = stash_.pair(r, &pair); error != 0) return error;
  *program = std::move(pair.program);
  if (r.type == SOCK_DGRAM)
    return through.relay->add(socket.id, std::move(pair.relay), relay::Kind::datagram);
  const int error = through.relay->put_back(socket.id, unread);
  if (error == 0) return through.relay->add(socket.id, std::move(pair.relay), relay::Kind::stream);
  if (error != ENOENT) return error;
  const int added = through.relay->add(socket.id, UniqueFd(fcntl(pair.relay.get(), F_DUPFD_CLOEXEC, 0)),
                                       relay::Kind::stream);
  if (added != EEXIST) return added;
  // Both sides have said all: what the program has not read is all there is.
  const auto size = static_cast<ssize_t>(unread.size());
  return send(pair.relay.get(), unread.data(), unread.size(), MSG_NOSIGNAL) == size ? 0 : ENOBUFS;
}

int FarSockets::make_datagrams(relay::Relay& relay, const protocol::FarSocket& socket, UniqueFd* program) {
  DatagramSocket wanted;
  wanted.id = socket.id;
  if (!address_of(socket.local, &wanted.local)) return EINVAL;
  wanted.v6_only = socket.v6_only != 0;
  auto end = std::make_unique<BoundEnd>();
  const HighPids high(1);
  if (const int error = end->open(wanted, program); error != 0) return error;
  return relay.add(socket.id, std::move(end));
}

int FarSockets::begin() {
  for (Through& t : throughs_) {
    {
      const HighPids high(1);
      if (const int error = t.relay->start(); error != 0) return error;
    }
    const int error = wait_for_holder(t);
    // It may have come this very moment.
    if (error != 0 && (t.thawed || t.relay->bar(true))) return error;
  }
  return 0;
}

int FarSockets::wait_for_holder(Through& through) {
  const int64_t end = monotonic_ns() + kPatienceNs;
  for (;;) {
    const relay::Status status = through.relay->status();
    if (status.connected || status.over == relay::Over::ended || (status.met && !through.thawed)) return 0;
    if (status.over == relay::Over::replaced) return ESTALE;
    if (status.violations >= kMostViolations || status.other_version) return EACCES;
    if (status.over != relay::Over::no || monotonic_ns() >= end) return ETIMEDOUT;
    wait_for_news(*through.relay);
  }
}

void FarSockets::wait_for_news(relay::Relay& relay) {
  pollfd p{relay.news_fd(), POLLIN, 0};
  uint64_t count;
  if (poll(&p, 1, kLookMs) > 0) (void)!read(p.fd, &count, sizeof count);
}

int FarSockets::look(std::vector<protocol::FarState>* states, std::vector<UniqueFd>* files, uint64_t* inode) {
  for (Through& t : throughs_) {
    if (!leads(*t.relay)) continue;
    if (files != nullptr) {
      std::string bytes;
      uint32_t channel = 0;
      if (const int error = t.relay->freeze(&bytes, &channel); error != 0) {
        for (const auto& [id, socket] : t.sockets) {
          if (id == channel) *inode = socket;
        }
        return error;
      }
      UniqueFd file;
      if (const int error = make_memory_file("virt-run-relay", bytes, &file); error != 0) return error;
      files->push_back(std::move(file));
    }
    states->push_back({t.key, t.holder, t.cut_limit_ms, t.sockets});
  }
  return 0;
}

void FarSockets::go_on() {
  for (Through& t : throughs_) {
    const HighPids high(1);
    (void)t.relay->go_on();
  }
}

void FarSockets::leave() {
  for (Through& t : throughs_) t.relay->leave();
  throughs_.clear();
}

// A peer that reads nothing is not waited for for ever: as long as a cut may last.
void FarSockets::finish() {
  for (Through& t : throughs_) {
    t.relay->let_go();
    const int64_t end = monotonic_ns() + int64_t{t.cut_limit_ms} * 1'000'000;
    // Also that datagram sockets have ended has to be on its way: nobody acknowledges it.
    while (t.relay->status().over == relay::Over::no && monotonic_ns() < end) wait_for_news(*t.relay);
  }
}

}  // namespace virt::init
