#include "init/holder.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>

#include "init/far_sockets.h"
#include "sys/clocks.h"

namespace virt::init {

using protocol::HeldSort;
using protocol::Reader;
using protocol::Type;
using protocol::Writer;

namespace {

constexpr size_t kMostTakers = 16, kMostHeld = 1 << 20;

}  // namespace

Holder::~Holder() {
  // The pod goes on.
  for (const Held& h : held_) {
    if (h.sort == HeldSort::kRepair && !detached_) (void)end_silence(h.socket.get(), h.spoken);
  }
  if (listener_) unlinkat(directory_.get(), name_.c_str(), 0);
}

int Holder::listen(int directory, const std::string& name, std::string_view key) {
  if (listener_) return EALREADY;
  if (name.empty() || name[0] == '.' || name.find('/') != std::string::npos ||
      key.size() != protocol::kKeyBytes)
    return EINVAL;
  directory_.reset(fcntl(directory, F_DUPFD_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  // The directory as the host shows it: the pod's view of it may be another.
  const std::string way = "/proc/self/fd/" + std::to_string(directory_.get()) + "/" + name;
  if (way.size() >= sizeof address.sun_path) return ENAMETOOLONG;
  std::memcpy(address.sun_path, way.data(), way.size());
  UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!directory_ || !socket) return errno;
  unlinkat(directory_.get(), name.c_str(), 0);  // of a former attempt
  if (bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) return errno;
  name_ = name;
  key_ = key;
  listener_ = std::move(socket);
  // As many as we may: a thousand connections are no rarity.
  rlimit files{};
  if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
  }
  return ::listen(listener_.get(), 16) == 0 ? 0 : errno;
}

int Holder::listen_for_others(std::string_view address, uint32_t cut_limit_ms) {
  if (cut_limit_ms != 0) options_.cut_limit_ms = cut_limit_ms;
  sockaddr_storage storage{};
  if (address.size() > sizeof storage) return EINVAL;
  std::memcpy(&storage, address.data(), address.size());
  if (storage.ss_family != AF_INET && storage.ss_family != AF_INET6) return EAFNOSUPPORT;
  auto* at = reinterpret_cast<sockaddr*>(&storage);
  UniqueFd socket(::socket(storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const int on = 1;
  if (!socket) return errno;
  setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  socklen_t size = sizeof storage;
  if (bind(socket.get(), at, static_cast<socklen_t>(address.size())) != 0 ||
      ::listen(socket.get(), 16) != 0 || getsockname(socket.get(), at, &size) != 0)
    return errno;
  // At the same place for both families.
  port_ = ntohs(reinterpret_cast<sockaddr_in&>(storage).sin_port);
  far_listener_ = std::move(socket);
  return 0;
}

int Holder::start() {
  since_ns_ = monotonic_ns();
  for (const Held& h : held_) {
    if (h.sort != HeldSort::kRepair) continue;
    if (const int error = close_silently(h.socket.get()); error != 0) return error;
  }
  const int error = start_relay();
  detached_ = error == 0;
  return error;
}

int Holder::start_relay() {
  if (!far_listener_) return 0;
  relay::Key key;
  if (!relay_key(key_, &key)) return EINVAL;
  relay_ = std::make_unique<relay::Relay>(relay::Role::holder, key, options_);
  for (const Held& h : held_) {
    if (h.sort != HeldSort::kConnection && h.sort != HeldSort::kDatagram) continue;
    const auto kind = h.sort == HeldSort::kDatagram ? relay::Kind::datagram : relay::Kind::stream;
    UniqueFd copy(fcntl(h.socket.get(), F_DUPFD_CLOEXEC, 0));
    if (!copy) return errno;
    if (const int error = relay_->add(h.id, std::move(copy), kind); error != 0) return error;
    pumps_ = true;
  }
  for (const Held& h : held_) {
    if (h.sort != HeldSort::kListener) continue;
    UniqueFd copy(fcntl(h.socket.get(), F_DUPFD_CLOEXEC, 0));
    if (!copy) return errno;
    // Those of packets are closed when the pod goes on.
    if (const int error = relay_->keep(h.id, std::move(copy)); error != 0 && error != EPROTOTYPE)
      return error;
  }
  relay_->accept_from(std::move(far_listener_));
  return relay_->start();
}

// False: nothing is left to hold.
bool Holder::look_at_relay() {
  uint64_t count;
  (void)!read(relay_->news_fd(), &count, sizeof count);
  const relay::Status status = relay_->status();
  if (!gone_on_ && (status.met || status.over != relay::Over::no)) {
    // What is pumped closes when its relay says so; clients that it does not lead on are refused from here on.
    gone_on_ = true;
    pumps_ = pumps_ || status.listeners > 0;
    held_.clear();
  }
  return status.over == relay::Over::no && (pumps_ || !gone_on_);
}

int Holder::add(uint32_t id, HeldSort sort, UniqueFd fd) {
  if (!listener_ || held_.size() >= kMostHeld) return EINVAL;
  Held h{id, sort, std::move(fd), {}};
  if (sort == HeldSort::kRepair) {
    if (const int error = spoken_options(h.socket.get(), &h.spoken); error != 0) return error;
  }
  held_.push_back(std::move(h));
  return 0;
}

void Holder::run() {
  sigset_t all;
  sigfillset(&all);
  const UniqueFd signals(
      signalfd(-1, &all, SFD_CLOEXEC | SFD_NONBLOCK));  // all are blocked since init's beginning
  while (!held_.empty() || gone_on_) {
    std::vector<pollfd> fds{{signals.get(), POLLIN, 0},
                            {listener_.get(), POLLIN, 0},
                            {relay_ ? relay_->news_fd() : -1, POLLIN, 0}};
    for (const auto& c : connections_)
      fds.push_back({c->fd(), static_cast<short>(c->unsent() > 0 ? POLLIN | POLLOUT : POLLIN), 0});
    if (poll(fds.data(), fds.size(), -1) < 0) {
      if (errno == EINTR) continue;
      break;
    }
    if (fds[0].revents != 0) {
      signalfd_siginfo info{};
      bool end = false;
      while (read(signals.get(), &info, sizeof info) == sizeof info)
        end |= info.ssi_signo == SIGTERM || info.ssi_signo == SIGINT || info.ssi_signo == SIGHUP;
      if (end) break;
    }
    for (size_t i = 3; i < fds.size(); ++i) {
      Connection& c = *connections_[i - 3];
      if (fds[i].revents == 0) continue;
      const bool alive = c.receive();
      Frame f;
      while (c.open() && c.next(&f)) handle(c, f);
      if (!c.flush() || !alive) c.close();
    }
    if (fds[1].revents != 0) accept_taker();
    if (fds[2].revents != 0 && !look_at_relay()) break;
    std::erase_if(connections_, [this](const auto& c) {
      if (!c->open() && taker_ == c.get()) {  // it did not come to anything: we keep them
        taker_ = nullptr;
        if (relay_) relay_->bar(false);
      }
      return !c->open();
    });
  }
}

void Holder::accept_taker() {
  UniqueFd fd(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (!fd || connections_.size() >= kMostTakers) return;
  ucred peer{};
  socklen_t size = sizeof peer;
  if (getsockopt(fd.get(), SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) return;
  if (peer.uid != getuid() && peer.uid != 0) return;
  connections_.push_back(std::make_unique<Connection>(std::move(fd)));
}

bool Holder::knows_key(std::string_view key) const {
  if (key.size() != key_.size()) return false;
  unsigned char difference = 0;
  for (size_t i = 0; i < key.size(); ++i) difference |= static_cast<unsigned char>(key[i] ^ key_[i]);
  return difference == 0;
}

protocol::HoldStatus Holder::status() {
  protocol::HoldStatus s;
  for (const Held& h : held_) {
    s.connections += h.sort == HeldSort::kConnection || h.sort == HeldSort::kRepair ? 1 : 0;
    s.listeners += h.sort == HeldSort::kListener ? 1 : 0;
    s.datagrams += h.sort == HeldSort::kDatagram ? 1 : 0;
  }
  s.gone_on = gone_on_ ? 1 : 0;
  if (relay_ && gone_on_) {
    const relay::Status r = relay_->status();
    s.connected = r.connected ? 1 : 0;
    s.connections = r.streams;
    s.datagrams = r.datagrams;
    s.listeners = r.listeners;
  }
  s.held_ms = static_cast<uint64_t>((monotonic_ns() - since_ns_) / 1'000'000);
  return s;
}

void Holder::handle(Connection& c, const Frame& f) {
  switch (f.type) {
    case Type::kHello: {
      Reader r(f.payload);
      if (!f.payload.empty() && !knows_key(r.text())) return c.reply(f, EACCES);
      c.reply(f, 0, encode(status()));
      return;
    }
    case Type::kTake:
      handle_take(c, f);
      return;
    case Type::kDrop:
      handle_drop(c, f);
      return;
    default:
      c.reply(f, EOPNOTSUPP);
  }
}

// From the `from`th on as many as fit into one message; who asks goes on until it has all.
void Holder::handle_take(Connection& c, const Frame& f) {
  Reader r(f.payload);
  const std::string key = r.text();
  const auto from = r.number<uint32_t>();
  if (!r.done()) return c.reply(f, EINVAL);
  if (!knows_key(key)) return c.reply(f, EACCES);
  if (taker_ != nullptr && taker_ != &c) return c.reply(f, EBUSY);
  if (gone_on_) return handle_take_back(c, f, from);
  if (from > held_.size()) return c.reply(f, EINVAL);
  if (relay_ && !relay_->bar(true)) return c.reply(f, ESTALE);
  taker_ = &c;
  Writer w;
  std::vector<int> fds;
  const size_t count = std::min(held_.size() - from, protocol::kMostHeldInFrame);
  w.number(static_cast<uint32_t>(held_.size()));
  w.number(static_cast<uint32_t>(count));
  for (size_t i = from; i < from + count; ++i) {
    w.number(held_[i].id);
    fds.push_back(held_[i].socket.get());
  }
  c.reply_with(f, w.bytes(), fds);
}

// The pod has come back to this host by way of another one: its listening sockets are its own again.
void Holder::handle_take_back(Connection& c, const Frame& f, uint32_t from) {
  const auto listeners = relay_ ? relay_->waiting_listeners() : std::vector<std::pair<uint32_t, UniqueFd>>();
  if (listeners.empty()) return c.reply(f, ESTALE);
  if (from > listeners.size()) return c.reply(f, EINVAL);
  taker_ = &c;
  Writer w;
  std::vector<int> fds;
  const size_t count = std::min(listeners.size() - from, protocol::kMostHeldInFrame);
  w.number(static_cast<uint32_t>(listeners.size()));
  w.number(static_cast<uint32_t>(count));
  for (size_t i = from; i < from + count; ++i) {
    w.number(listeners[i].first);
    fds.push_back(listeners[i].second.get());
  }
  c.reply_with(f, w.bytes(), fds);
}

// Whoever took them has made a pod of them, or they are to be closed.
void Holder::handle_drop(Connection& c, const Frame& f) {
  Reader r(f.payload);
  const std::string key = r.text();
  if (!r.done()) return c.reply(f, EINVAL);
  // Who may end us may end us without the key as well (kill(2)).
  if (!key.empty() && !knows_key(key)) return c.reply(f, EACCES);
  if (taker_ != nullptr && taker_ != &c) return c.reply(f, EBUSY);
  if (gone_on_ && !key.empty()) {  // connections still go through here
    relay_->refuse_clients();
    return c.reply(f, 0);
  }
  held_.clear();
  relay_.reset();
  gone_on_ = false;
  c.reply(f, 0);
}

}  // namespace virt::init
