// A relay's tunnels: made, replaced, cut; and what both ends tell one another before anything goes through.
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <cerrno>

#include "relay/relay.h"

namespace virt::relay {
namespace {

constexpr int64_t kMs = 1'000'000;
constexpr int64_t kGreetingNs = 5'000 * kMs;
constexpr int64_t kLeastBackoffNs = 50 * kMs;
constexpr int64_t kMostBackoffNs = 2'000 * kMs;
constexpr int64_t kSoundNs = 1'000 * kMs;  // a tunnel that lived as long is made again at once
constexpr size_t kMostUnproven = 16;

int64_t doubled(int64_t backoff_ns) { return std::clamp(backoff_ns * 2, kLeastBackoffNs, kMostBackoffNs); }

}  // namespace

// What other threads left for this one.
void Relay::take_waiting() {
  for (UniqueFd& fd : adopted_) add_link(std::move(fd), false);
  adopted_.clear();
  if (accept_ns_ == 0) watch_listeners(true);
}

void Relay::watch_listeners(bool on) {
  if (on == listening_) return;
  listening_ = on;
  for (size_t i = 0; i < listeners_.size(); ++i) {
    uint32_t watched = on ? UINT32_MAX : EPOLLIN;
    watch(listeners_[i].get(), Source::listener, i, on ? EPOLLIN : UINT32_MAX, &watched);
  }
}

void Relay::pause_accepting() {
  watch_listeners(false);
  backoff_ns_ = doubled(backoff_ns_);
  accept_ns_ = now_ns_ + backoff_ns_;
}

// One at a time: a listener need not be non-blocking, and epoll tells of the next.
void Relay::accept_some(int listener) {
  const int fd = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
  if (fd >= 0) {
    add_link(UniqueFd(fd), false);
  } else if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) {
    pause_accepting();  // no descriptor is free, or the like
  }
}

void Relay::connect_now() {
  UniqueFd fd(socket(address_.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const int result = fd ? connect(fd.get(), reinterpret_cast<const sockaddr*>(&address_), address_size_) : -1;
  if (result != 0 && (!fd || errno != EINPROGRESS)) {
    backoff_ns_ = doubled(backoff_ns_);
    connect_ns_ = now_ns_ + backoff_ns_;
    return;
  }
  add_link(std::move(fd), result != 0);
}

void Relay::add_link(UniqueFd fd, bool connecting) {
  // Many that prove nothing do not keep out the one that does: the oldest goes.
  Link* oldest = nullptr;
  size_t unproven = 0;
  for (const auto& link : links_) {
    if (link->begun) continue;
    ++unproven;
    if (oldest == nullptr) oldest = link.get();
  }
  if (unproven >= kMostUnproven) drop(oldest);
  auto link = std::make_unique<Link>(role_, key_, std::move(fd), connecting);
  link->serial = ++serial_;
  link->deadline_ns = now_ns_ + kGreetingNs;
  link->watched = UINT32_MAX;
  links_.push_back(std::move(link));
  after_link(links_.back().get());
}

Relay::Link* Relay::link_of(uint64_t serial) {
  for (const auto& link : links_) {
    if (link->serial == serial) return link.get();
  }
  return nullptr;
}

void Relay::on_link(Link* link, uint32_t events) {
  Tunnel& tunnel = link->tunnel;
  const bool broken = (events & (EPOLLERR | EPOLLHUP)) != 0;
  if ((events & EPOLLOUT) != 0 || (broken && tunnel.state() == TunnelState::connecting)) tunnel.on_writable();
  const bool was_open = tunnel.state() == TunnelState::open;
  if ((events & EPOLLIN) != 0 || broken) tunnel.on_readable();
  if (!was_open && tunnel.state() == TunnelState::open && role_ == Role::relay) make_current(link);
  Record record;
  char* payload;
  while (tunnel.next(&record, &payload)) {
    if (!take(link, record, payload)) {
      tunnel.end_violated();
      break;
    }
    if (status_.over == Over::replaced) return;  // the link is gone
  }
  after_link(link);
}

// Watches it for what it waits for, or lets it go.
void Relay::after_link(Link* link) {
  Tunnel& tunnel = link->tunnel;
  if (tunnel.state() == TunnelState::ended) {
    drop(link);
    return;
  }
  const bool writes = tunnel.state() == TunnelState::connecting || tunnel.waits();
  const uint32_t reads = tunnel.state() == TunnelState::connecting ? 0 : uint32_t{EPOLLIN};
  watch(tunnel.fd(), Source::link, link->serial, reads | (writes ? uint32_t{EPOLLOUT} : 0), &link->watched);
}

void Relay::drop(Link* link) {
  const bool violated = link->tunnel.violated();
  const bool sound = link->ready && !violated;
  if (violated) ++status_.violations;
  if (link->tunnel.other_version()) status_.other_version = true;
  if (sound) backoff_ns_ = 0;
  if (role_ == Role::relay) {
    if (!sound || now_ns_ - link->ready_ns < kSoundNs) backoff_ns_ = doubled(sound ? 0 : backoff_ns_);
    connect_ns_ = now_ns_ + backoff_ns_;
  } else if (violated && link->begun) {
    pause_accepting();
  }
  if (link == current_) {
    if (link->ready) {
      cut_ns_ = status_.since_ns = now_ns_;
      news();
    }
    current_ = nullptr;
    for (const uint32_t id : queue_) {
      if (Channel* channel = stream(id); channel != nullptr) channel->queued = false;
    }
    queue_.clear();
  }
  std::erase_if(links_, [link](const auto& one) { return one.get() == link; });
}

// From here on nothing is received through an older one, so what has been received can be told.
void Relay::make_current(Link* link) {
  if (current_ != nullptr && current_ != link) drop(current_);
  current_ = link;
  Tunnel& tunnel = link->tunnel;
  tunnel.put({Type::begin, Mark::none, 0, options_.window_bytes, 0, instance_, epoch_}, nullptr);
  for (const auto& [id, channel] : streams_) {
    if (channel) tunnel.put({Type::have, Mark::none, 0, id, 0, 0, channel->received()}, nullptr);
  }
  if (role_ == Role::relay) say_leads(&tunnel);
  for (const auto& [id, channel] : datagrams_) {
    if (channel) tunnel.put({Type::have, Mark::none, 0, id, 0, 0, 0}, nullptr);
  }
  tunnel.put({Type::ready, Mark::none, 0, 0, 0, 0, 0}, nullptr);
  tunnel.flush();
}

// False: no honest peer sends this now.
bool Relay::take(Link* link, const Record& record, char* payload) {
  if (link->ready) return record.type >= Type::data && take_data(record, payload);
  if (record.size != 0 || record.address != 0) return false;
  if (link->refused) return true;
  if (!link->begun) return take_begin(link, record);
  if (record.type == Type::have) return take_have(link, record);
  if (role_ == Role::holder && record.type == Type::leads) {
    if (Kept* kept = kept_of(record.id); kept != nullptr) kept->led_by = link->serial;
    return true;
  }
  if (role_ == Role::holder && record.type == Type::opened) {
    link->opened = record.offset;
    return true;
  }
  if (record.type != Type::ready) return false;
  if (barred_ || is_another(*link)) {
    link->tunnel.end();
    return true;
  }
  on_ready(link);
  return true;
}

bool Relay::take_begin(Link* link, const Record& record) {
  if (record.type == Type::refused && role_ == Role::relay && record.offset >= epoch_) {
    end_all(Over::replaced);
    return true;
  }
  if (record.type != Type::begin || record.id == 0) return false;
  link->peer_instance = record.reserved;
  if (role_ == Role::relay) {
    if (record.offset != epoch_) return false;
  } else if (barred_) {
    link->tunnel.end();
    return true;
  } else if (record.offset < epoch_ || (record.offset == epoch_ && is_another(*link))) {
    // It goes when the peer or its time does: closed at once, what the peer still says would reset it before it has read this.
    link->tunnel.put({Type::refused, Mark::none, 0, 0, 0, 0, epoch_}, nullptr);
    link->tunnel.flush();
    link->refused = true;
    return true;
  }
  if (record.offset > epoch_) instance_ = 0;
  epoch_ = record.offset;
  link->begun = true;
  link->peer_window = record.id;
  if (role_ == Role::holder) make_current(link);
  return true;
}

// A holder has what it sent to one relay from none but that.
bool Relay::is_another(const Link& link) const {
  return role_ == Role::holder && instance_ != 0 && link.peer_instance != instance_;
}

bool Relay::take_have(Link* link, const Record& record) {
  if (const auto at = streams_.find(record.id); at != streams_.end() && at->second) {
    if (!at->second->resume(record.offset, link->peer_window)) ++status_.reset;
    at->second->listed_by = link->serial;
  }
  if (const auto at = datagrams_.find(record.id); at != datagrams_.end() && at->second) {
    at->second->listed_by = link->serial;
  }
  return true;
}

// What the peer has not named has ended there.
void Relay::on_ready(Link* link) {
  if (role_ == Role::holder) instance_ = link->peer_instance;
  link->ready = true;
  link->ready_ns = status_.since_ns = now_ns_;
  seen_peer_ = true;
  peer_left_ = false;
  datagrams_watched_ = false;
  if (role_ == Role::holder) lead_on(link);
  if (letting_go_ && !leads_.empty()) link->tunnel.put({Type::enough, Mark::none, 0, 0, 0, 0, 0}, nullptr);
  for (const auto& [id, channel] : streams_) {
    if (!channel) continue;
    if (channel->listed_by != link->serial && !channel->peer_has_ended()) ++status_.reset;
    // What the peer was told of may have been lost with the former tunnel.
    if (channel->received() > 0 && !channel->is_over()) channel->acknowledge(&link->tunnel);
    settle(channel.get(), id);
  }
  for (const auto& [id, channel] : datagrams_) {
    if (!channel) continue;
    if (channel->listed_by != link->serial) channel->end();
    settle(channel.get(), id);
  }
  news();
}

void Relay::end_all(Over why) {
  for (auto& [id, channel] : streams_) {
    if (!channel) continue;
    channel->reset();
    channel.reset();
    ++status_.reset;
  }
  for (auto& [id, channel] : datagrams_) channel.reset();
  living_streams_ = living_datagrams_ = 0;
  watch_listeners(false);
  listeners_.clear();
  close_kept(UINT64_MAX);
  leads_.clear();
  clients_ = 0;
  queue_.clear();
  due_.clear();
  current_ = nullptr;
  links_.clear();
  address_size_ = 0;
  tick_ns_ = accept_ns_ = clients_ns_ = again_ns_ = 0;
  status_.over = why;
  status_.since_ns = now_ns_;
  news();
}

}  // namespace virt::relay
