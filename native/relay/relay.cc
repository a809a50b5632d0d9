#include "relay/relay.h"

#include <sodium.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "sys/clocks.h"
#include "sys/thread.h"

namespace virt::relay {
namespace {

constexpr int64_t kMs = 1'000'000;
constexpr int64_t kTickNs = 10 * kMs;
constexpr uint32_t kLeastWindow = 4 << 10;
constexpr uint32_t kMostWindow = 64 << 20;
constexpr int kSourceShift = 56;

Options sensible(Options options) {
  options.window_bytes = std::clamp(options.window_bytes, kLeastWindow, kMostWindow);
  return options;
}

}  // namespace

Relay::Relay(Role role, const Key& key, Options options)
    : role_(role), key_(key), options_(sensible(options)) {
  news_.reset(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
}

Relay::~Relay() { stop_thread(); }

int Relay::add(uint32_t id, UniqueFd socket, Kind kind) {
  int type = 0;
  socklen_t size = sizeof type;
  if (getsockopt(socket.get(), SOL_SOCKET, SO_TYPE, &type, &size) != 0) return errno;
  if (type != (kind == Kind::stream ? SOCK_STREAM : SOCK_DGRAM)) return EPROTOTYPE;
  if (kind == Kind::datagram) return add(id, datagram_socket(std::move(socket)));
  const std::lock_guard lock(mutex_);
  if (datagrams_.contains(id)) return EEXIST;
  const auto [at, is_new] = streams_.try_emplace(id);
  if (!is_new && (!at->second || !at->second->wants_socket())) return EEXIST;
  if (is_new) {
    at->second = std::make_unique<Channel>(id, options_.window_bytes);
    ++living_streams_;
  }
  at->second->set_socket(std::move(socket));
  if (running_) settle(at->second.get(), id);
  wake();
  return 0;
}

int Relay::add(uint32_t id, std::unique_ptr<DatagramEnd> end) {
  const std::lock_guard lock(mutex_);
  if (streams_.contains(id)) return EEXIST;
  const auto [at, is_new] = datagrams_.try_emplace(id);
  if (!is_new && (!at->second || at->second->fd() >= 0)) return EEXIST;
  if (is_new) {
    at->second = std::make_unique<DatagramChannel>(id);
    ++living_datagrams_;
  }
  at->second->set_end(std::move(end));
  if (running_) settle(at->second.get(), id);
  wake();
  return 0;
}

void Relay::accept_from(UniqueFd listener) {
  const std::lock_guard lock(mutex_);
  if (running_) watch_listeners(false);
  listeners_.push_back(std::move(listener));
  wake();
}

int Relay::dial(const sockaddr* address, socklen_t size) {
  if (size > sizeof address_ || size < sizeof(sa_family_t)) return EINVAL;
  const std::lock_guard lock(mutex_);
  std::memcpy(&address_, address, size);
  address_size_ = size;
  connect_ns_ = 0;
  wake();
  return 0;
}

bool Relay::bar(bool barred) {
  const std::lock_guard lock(mutex_);
  if (barred && seen_peer_) return false;
  barred_ = barred;
  wake();
  return true;
}

void Relay::let_go() {
  const std::lock_guard lock(mutex_);
  letting_go_ = true;
  // The kernel tells nobody when a datagram socket's peer is closed.
  for (auto& [id, channel] : datagrams_) {
    if (!channel) continue;
    while (is_connected() && !current_->tunnel.is_full()) {
      const size_t bytes = channel->pass_on(&current_->tunnel, scratch_.get());
      status_.bytes_out += bytes;
      if (bytes == 0) break;
    }
    channel->end();
    settle(channel.get(), id);
  }
  for (auto& [id, channel] : streams_) {
    if (channel) settle(channel.get(), id);
  }
  if (streams_.empty() && datagrams_.empty() && leads_.empty()) status_.over = Over::ended;
  if (!leads_.empty() && is_connected())
    current_->tunnel.put({Type::enough, Mark::none, 0, 0, 0, 0, 0}, nullptr);
  wake();
}

void Relay::adopt(UniqueFd stream) {
  const std::lock_guard lock(mutex_);
  adopted_.push_back(std::move(stream));
  wake();
}

// There may be ten thousand, most of them idle.
static_assert(sizeof(Channel) < 512);

int Relay::start() {
  const std::lock_guard lock(mutex_);
  if (started_) return EALREADY;
  if (sodium_init() < 0) return ENOSYS;
  while (role_ == Role::relay && instance_ == 0) instance_ = randombytes_random();
  epoll_.reset(epoll_create1(EPOLL_CLOEXEC));
  wake_.reset(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!epoll_ || !wake_ || !news_) return errno;
  uint32_t watched = UINT32_MAX;
  watch(wake_.get(), Source::wake, 0, EPOLLIN, &watched);
  scratch_.reset(new char[kDatagramBytes]);
  for (auto& [id, channel] : streams_) {
    if (channel && channel->wants_socket()) {
      if (std::exchange(channel->to_connect, false) && leads_.contains(channel->listener)) {
        connect_client(channel.get());
        continue;
      }
      channel->lose_socket();
      ++status_.reset;
    }
  }
  cut_ns_ = status_.since_ns = monotonic_ns();
  started_ = true;
  return start_thread();
}

int Relay::start_thread() {
  stop_ = false;
  const int error = virt::start_thread(run_thread, this, &thread_);
  running_ = error == 0;
  return error;
}

void Relay::stop_thread() {
  {
    const std::lock_guard lock(mutex_);
    if (!running_) return;
    stop_ = true;
    wake();
  }
  pthread_join(thread_, nullptr);
  running_ = false;
}

int Relay::go_on() {
  const std::lock_guard lock(mutex_);
  if (!started_) return EINVAL;
  return running_ ? EALREADY : start_thread();
}

void Relay::wake() {
  if (wake_) eventfd_write(wake_.get(), 1);
}

void Relay::news() { eventfd_write(news_.get(), 1); }

Status Relay::status() {
  const std::lock_guard lock(mutex_);
  Status status = status_;
  status.streams = living_streams_;
  status.datagrams = living_datagrams_;
  status.connected = is_connected();
  status.met = seen_peer_;
  if (!enough_)
    status.listeners = static_cast<uint32_t>(role_ == Role::holder ? kept_.size() : leads_.size());
  return status;
}

void* Relay::run_thread(void* self) {
  static_cast<Relay*>(self)->run();
  return nullptr;
}

void Relay::run() {
  constexpr int kMost = 256;
  epoll_event events[kMost];
  std::unique_lock lock(mutex_);
  now_ns_ = monotonic_ns();
  take_waiting();
  for (auto& [id, channel] : streams_) {
    if (channel) settle(channel.get(), id);
  }
  datagrams_watched_ = false;
  while (!stop_) {
    keep_times();
    pump();
    const int timeout = timeout_ms();
    lock.unlock();
    const int n = epoll_wait(epoll_.get(), events, kMost, timeout);
    lock.lock();
    now_ns_ = monotonic_ns();
    for (int i = 0; i < n; ++i) {
      const uint64_t tag = events[i].data.u64;
      dispatch(static_cast<Source>(tag >> kSourceShift), tag & ((uint64_t{1} << kSourceShift) - 1),
               events[i].events);
    }
  }
}

void Relay::watch(int fd, Source source, uint64_t number, uint32_t events, uint32_t* watched) const {
  if (*watched == events) return;
  epoll_event event{};
  event.events = events;
  event.data.u64 = static_cast<uint64_t>(source) << kSourceShift | number;
  const int operation = events == UINT32_MAX     ? EPOLL_CTL_DEL
                        : *watched == UINT32_MAX ? EPOLL_CTL_ADD
                                                 : EPOLL_CTL_MOD;
  epoll_ctl(epoll_.get(), operation, fd, &event);
  *watched = events;
}

void Relay::dispatch(Source source, uint64_t number, uint32_t events) {
  switch (source) {
    case Source::wake: {
      eventfd_t count;
      eventfd_read(wake_.get(), &count);
      take_waiting();
      return;
    }
    case Source::listener:
      if (number < listeners_.size()) accept_some(listeners_[number].get());
      return;
    case Source::link:
      if (Link* link = link_of(number); link != nullptr) on_link(link, events);
      return;
    case Source::stream: {
      const auto at = streams_.find(static_cast<uint32_t>(number));
      if (at == streams_.end() || !at->second) return;
      at->second->on_events(events);
      settle(at->second.get(), at->first);
      return;
    }
    case Source::client:
      if (Kept* kept = kept_of(static_cast<uint32_t>(number)); kept != nullptr) accept_client(kept);
      return;
    case Source::datagram: {
      const auto at = datagrams_.find(static_cast<uint32_t>(number));
      if (at == datagrams_.end() || !at->second || !is_connected()) return;
      status_.bytes_out += at->second->pass_on(&current_->tunnel, scratch_.get());
      settle(at->second.get(), at->first);
      return;
    }
  }
}

int Relay::timeout_ms() const {
  if (is_connected() && !queue_.empty() && !current_->tunnel.waits()) return 0;
  int64_t next = INT64_MAX;
  for (const auto& link : links_) {
    if (!link->ready) next = std::min(next, link->deadline_ns);
  }
  if (tick_ns_ != 0) next = std::min(next, tick_ns_);
  for (const int64_t at : {accept_ns_, clients_ns_, again_ns_}) {
    if (at != 0) next = std::min(next, at);
  }
  const bool lives = status_.over == Over::no || status_.over == Over::ended;
  if (lives && !is_connected()) {
    if (role_ == Role::relay || (seen_peer_ && !peer_left_))
      next = std::min(next, cut_ns_ + options_.cut_limit_ms * kMs);
    if (address_size_ != 0 && links_.empty()) next = std::min(next, connect_ns_);
  }
  if (next == INT64_MAX) return -1;
  const int64_t left = (next - now_ns_ + kMs - 1) / kMs;
  return static_cast<int>(std::clamp<int64_t>(left, 0, 1 << 30));
}

void Relay::keep_times() {
  if (status_.over != Over::no && status_.over != Over::ended) return;
  for (size_t i = links_.size(); i-- > 0;) {
    if (!links_[i]->ready && now_ns_ >= links_[i]->deadline_ns) drop(links_[i].get());
  }
  if (accept_ns_ != 0 && now_ns_ >= accept_ns_) {
    accept_ns_ = 0;
    watch_listeners(true);
  }
  if (tick_ns_ != 0 && now_ns_ >= tick_ns_) tick();
  if (clients_ns_ != 0 && now_ns_ >= clients_ns_) clients_ns_ = 0;
  if (again_ns_ != 0 && now_ns_ >= again_ns_) connect_again();
  if (is_connected()) return;
  if ((role_ == Role::relay || (seen_peer_ && !peer_left_)) &&
      now_ns_ - cut_ns_ >= options_.cut_limit_ms * kMs) {
    end_all(Over::limit_passed);
    return;
  }
  if (address_size_ != 0 && links_.empty() && now_ns_ >= connect_ns_) connect_now();
}

// Small acknowledgements wait for company; nobody waits for them. A connection that has nothing to keep gives its memory back.
void Relay::tick() {
  tick_ns_ = 0;
  std::vector<uint32_t> noted;
  noted.swap(noted_);
  for (const uint32_t id : noted) {
    Channel* channel = stream(id);
    if (channel == nullptr) continue;
    channel->noted = false;
    channel->release_memory();
    if (is_connected() && channel->unacknowledged() > 0) channel->acknowledge(&current_->tunnel);
    settle(channel, id);
  }
  if (!noted_.empty()) tick_ns_ = now_ns_ + kTickNs;
}

}  // namespace virt::relay
