// New clients of a pod that has gone on: they come to the holder's listening sockets, and each becomes a channel that the relay
// leads to the pod's own. The holder chooses its number, and says it before anything else of it; the relay says after each cut
// how many it has heard of.
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "relay/relay.h"

namespace virt::relay {
namespace {

constexpr int64_t kMs = 1'000'000;
constexpr int64_t kAgainNs = 20 * kMs;
constexpr int64_t kPauseNs = 200 * kMs;
// More wait in the backlog.
constexpr uint32_t kMostClients = 16'384;

}  // namespace

int Relay::keep(uint32_t id, UniqueFd listener) {
  int type = 0;
  socklen_t size = sizeof type;
  if (getsockopt(listener.get(), SOL_SOCKET, SO_TYPE, &type, &size) != 0) return errno;
  if (type != SOCK_STREAM) return EPROTOTYPE;
  const std::lock_guard lock(mutex_);
  if (kept_of(id) != nullptr) return EEXIST;
  kept_.push_back({id, std::move(listener)});
  return 0;
}

std::vector<std::pair<uint32_t, UniqueFd>> Relay::waiting_listeners() {
  const std::lock_guard lock(mutex_);
  std::vector<std::pair<uint32_t, UniqueFd>> copies;
  if (is_connected()) return copies;
  for (const Kept& k : kept_) {
    UniqueFd copy(fcntl(k.fd.get(), F_DUPFD_CLOEXEC, 0));
    if (copy) copies.emplace_back(k.id, std::move(copy));
  }
  return copies;
}

void Relay::refuse_clients() {
  const std::lock_guard lock(mutex_);
  close_kept(UINT64_MAX);
  wake();
}

int Relay::lead(uint32_t listener, const sockaddr* address, socklen_t size) {
  Lead lead;
  if (size > sizeof lead.address || size < sizeof(sa_family_t)) return EINVAL;
  std::memcpy(&lead.address, address, size);
  lead.size = size;
  const std::lock_guard lock(mutex_);
  if (started_) return EINVAL;
  leads_[listener] = lead;
  return 0;
}

std::vector<Relay::Client> Relay::clients() {
  const std::lock_guard lock(mutex_);
  std::vector<Client> clients;
  for (const auto& [id, channel] : streams_) {
    if (!is_client(id) || !channel || channel->fd() < 0 || channel->is_connecting()) continue;
    Client c{id, 0, {}, {}};
    struct stat st {};
    if (fstat(channel->fd(), &st) == 0) c.inode = st.st_ino;
    sockaddr_storage address{};
    socklen_t size = sizeof address;
    if (getsockname(channel->fd(), reinterpret_cast<sockaddr*>(&address), &size) == 0)
      c.local.assign(reinterpret_cast<const char*>(&address), size);
    size = sizeof address;
    if (getpeername(channel->fd(), reinterpret_cast<sockaddr*>(&address), &size) == 0)
      c.peer.assign(reinterpret_cast<const char*>(&address), size);
    clients.push_back(std::move(c));
  }
  return clients;
}

Channel* Relay::stream(uint32_t id) {
  const auto at = streams_.find(id);
  return at == streams_.end() ? nullptr : at->second.get();
}

// Of a client nothing is kept: what the peer still says of it is known by its number.
void Relay::forget_clients() {
  for (const uint32_t id : ended_clients_) streams_.erase(id);
  ended_clients_.clear();
}

// --- the holder's

Relay::Kept* Relay::kept_of(uint32_t id) {
  const auto at = std::find_if(kept_.begin(), kept_.end(), [id](const Kept& k) { return k.id == id; });
  return at == kept_.end() ? nullptr : &*at;
}

// Closes those that nobody leads on.
void Relay::close_kept(uint64_t led_by) {
  std::erase_if(kept_, [this, led_by](Kept& k) {
    if (k.led_by == led_by) return false;
    watch(k.fd.get(), Source::client, k.id, UINT32_MAX, &k.watched);
    return true;
  });
}

// A relay has come. Those of which the former one had not heard are said to this one.
void Relay::lead_on(Link* link) {
  close_kept(link->serial);
  leads_on_ = leads_on_ || !kept_.empty();
  // Only now is nobody left who could have them back as they were.
  for (const Kept& k : kept_) fcntl(k.fd.get(), F_SETFL, fcntl(k.fd.get(), F_GETFL) | O_NONBLOCK);
  std::vector<Channel*> unheard;
  for (const auto& [id, channel] : streams_) {
    if (is_client(id) && channel && channel->opened > link->opened && kept_of(channel->listener) != nullptr)
      unheard.push_back(channel.get());
  }
  std::sort(unheard.begin(), unheard.end(),
            [](const Channel* a, const Channel* b) { return a->opened < b->opened; });
  for (Channel* channel : unheard) say_open(link, channel);
}

void Relay::say_open(Link* link, Channel* channel) {
  link->tunnel.put({Type::open, Mark::none, 0, channel->id(), 0, channel->listener, channel->opened},
                   nullptr);
  if (!channel->resume(0, link->peer_window)) ++status_.reset;
  channel->listed_by = link->serial;
}

// Clients that can't be passed on now wait where they are, in the backlog.
void Relay::settle_clients() {
  const bool wanted =
      is_connected() && !current_->tunnel.is_full() && clients_ < kMostClients && clients_ns_ == 0;
  for (Kept& k : kept_)
    watch(k.fd.get(), Source::client, k.id, wanted ? uint32_t{EPOLLIN} : UINT32_MAX, &k.watched);
}

void Relay::accept_client(Kept* kept) {
  if (!is_connected()) return;
  UniqueFd fd(accept4(kept->fd.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (!fd) {
    // No descriptor is free, or the like; a client that has gone again is none.
    if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) clients_ns_ = now_ns_ + kPauseNs;
    return;
  }
  uint32_t id;
  do id = kFirstClient | static_cast<uint32_t>(++opened_);
  while (streams_.contains(id) || datagrams_.contains(id));
  Channel* channel = add_client(id, kept->id, opened_);
  channel->set_socket(std::move(fd));
  say_open(current_, channel);
  settle(channel, id);
}

Channel* Relay::add_client(uint32_t id, uint32_t listener, uint64_t opened) {
  auto& channel = streams_[id];
  channel = std::make_unique<Channel>(id, options_.window_bytes);
  channel->listener = listener;
  channel->opened = opened;
  ++living_streams_;
  ++clients_;
  return channel.get();
}

// --- the relay's

void Relay::say_leads(Tunnel* tunnel) const {
  tunnel->put({Type::opened, Mark::none, 0, 0, 0, 0, opened_}, nullptr);
  if (letting_go_) return;
  for (const auto& [listener, lead] : leads_)
    tunnel->put({Type::leads, Mark::none, 0, listener, 0, 0, 0}, nullptr);
}

// False: no honest peer sends this.
bool Relay::take_client(const Record& record) {
  if (record.size != 0 || record.address != 0) return false;
  if (record.type == Type::enough) {
    if (role_ == Role::relay) {
      enough_ = letting_go_;
      return letting_go_;
    }
    close_kept(UINT64_MAX);
    current_->tunnel.put(record, nullptr);
    news();
    return true;
  }
  // More than an honest holder has, for it may hear later than we that one has ended.
  if (role_ != Role::relay || !is_client(record.id) || record.offset <= opened_ ||
      !leads_.contains(record.reserved) || streams_.contains(record.id) || datagrams_.contains(record.id) ||
      clients_ >= 2 * kMostClients) {
    return false;
  }
  opened_ = record.offset;
  Channel* channel = add_client(record.id, record.reserved, record.offset);
  channel->resume(0, current_->peer_window);
  letting_go_ ? channel->lose_socket() : connect_client(channel);
  settle(channel, record.id);
  return true;
}

// To whoever listens there for the pod. If nobody does, the client is told so by a reset.
void Relay::connect_client(Channel* channel) {
  const auto at = leads_.find(channel->listener);
  if (at == leads_.end()) return channel->lose_socket();
  const Lead& lead = at->second;
  UniqueFd fd(channel->is_connecting()
                  ? -1
                  : socket(lead.address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const int socket = channel->is_connecting() ? channel->fd() : fd.get();
  if (socket < 0) return channel->lose_socket();
  const int error =
      connect(socket, reinterpret_cast<const sockaddr*>(&lead.address), lead.size) == 0 ? 0 : errno;
  if (error != 0 && error != EINPROGRESS && error != EAGAIN) return channel->lose_socket();
  if (fd) channel->set_connecting(std::move(fd));
  if (error == 0) channel->connected();
  // The backlog of a unix socket is full, and nobody will tell us when it is not.
  if (error == EAGAIN) {
    unconnected_.push_back(channel->id());
    if (again_ns_ == 0) again_ns_ = now_ns_ + kAgainNs;
  }
}

void Relay::connect_again() {
  again_ns_ = 0;
  std::vector<uint32_t> ids;
  ids.swap(unconnected_);
  for (const uint32_t id : ids) {
    Channel* channel = stream(id);
    if (channel == nullptr || !channel->is_connecting()) continue;
    connect_client(channel);
    settle(channel, id);
  }
}

}  // namespace virt::relay
