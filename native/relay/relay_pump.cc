// What goes through a relay's tunnel: from channels into frames, each channel in turn, and from frames to channels.
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include "relay/relay.h"

namespace virt::relay {
namespace {

constexpr int64_t kTickNs = 10'000'000;
constexpr int kPasses = 4;  // before the sockets are looked at again

}  // namespace

// False: no honest peer sends this.
bool Relay::take_data(const Record& record, const char* payload) {
  if (record.type == Type::open || record.type == Type::enough) return take_client(record);
  if (record.type == Type::datagram || record.type == Type::ended) {
    const auto at = datagrams_.find(record.id);
    if (at == datagrams_.end()) return false;
    if (!at->second) return true;  // it ended while this was on its way
    if (record.type == Type::datagram) {
      if (record.address > kAddressBytes) return false;
      status_.bytes_in += record.size - record.address;
      at->second->receive(record, payload);
    } else {
      at->second->end();
    }
    settle(at->second.get(), record.id);
    return true;
  }
  if (record.type == Type::leave) {
    peer_left_ = role_ == Role::holder;
    return peer_left_;
  }
  const auto at = streams_.find(record.id);
  if (at == streams_.end() && !is_client(record.id)) return false;
  Channel* channel = at == streams_.end() ? nullptr : at->second.get();
  if (channel == nullptr) {
    // It ended while this was on its way, and whoever sent it waits for nothing else.
    if (record.type == Type::data && !current_->tunnel.is_full())
      current_->tunnel.put({Type::acked, Mark::none, 0, record.id, 0, 0, record.offset + record.size},
                           nullptr);
    return true;
  }
  if (record.type == Type::data) {
    status_.bytes_in += record.size;
    if (record.address != 0 || !channel->receive(record, payload)) return false;
  } else if (record.type != Type::acked || !channel->acknowledged(record.offset)) {
    return false;
  }
  settle(channel, record.id);
  return true;
}

// After anything has happened to a channel: what is to be watched, sent, acknowledged.
void Relay::settle(Channel* channel, uint32_t id) {
  if (letting_go_) channel->let_go();
  // What the program has not taken yet must be there for an image.
  const bool lingers = channel->is_over() && role_ == Role::relay && channel->unsent() > 0;
  if (channel->is_over() && !lingers) {
    streams_[id].reset();
    --living_streams_;
    if (is_client(id)) {
      --clients_;
      ended_clients_.push_back(id);
    }
    return;
  }
  if (channel->fd() >= 0) {
    if (seen_peer_) channel->prepare();
    watch(channel->fd(), Source::stream, id, seen_peer_ ? channel->interest() : Channel::kUnwatched,
          &channel->watched);
  } else {
    channel->watched = Channel::kUnwatched;
  }
  if (is_connected()) {
    if (!channel->queued && channel->has_to_send()) {
      channel->queued = true;
      queue_.push_back(id);
    }
    if (!channel->due && channel->acknowledgement_is_due()) {
      channel->due = true;
      due_.push_back(id);
    }
  }
  if (!channel->noted && (lingers || channel->wants_tick(is_connected()))) {
    channel->noted = true;
    noted_.push_back(id);
    if (tick_ns_ == 0) tick_ns_ = now_ns_ + kTickNs;
  }
}

void Relay::settle(DatagramChannel* channel, uint32_t id) {
  if (channel->is_over()) {
    // A tunnel that is made later does not list it.
    if (is_connected()) current_->tunnel.put({Type::ended, Mark::none, 0, id, 0, 0, 0}, nullptr);
    datagrams_[id].reset();
    --living_datagrams_;
    return;
  }
  if (channel->fd() < 0) return;
  // Without a tunnel, or room in it, the kernel keeps what its queue takes and drops the rest.
  const bool wanted = is_connected() && !current_->tunnel.is_full();
  watch(channel->fd(), Source::datagram, id, wanted ? EPOLLIN : UINT32_MAX, &channel->watched);
}

void Relay::settle_datagrams() {
  const bool wanted = is_connected() && !current_->tunnel.is_full();
  if (wanted == datagrams_watched_) return;
  datagrams_watched_ = wanted;
  for (auto& [id, channel] : datagrams_) {
    if (!channel) continue;
    if (wanted) status_.bytes_out += channel->pass_on(&current_->tunnel, scratch_.get());
    settle(channel.get(), id);
  }
}

void Relay::pump() {
  forget_clients();
  settle_datagrams();
  if (is_connected()) {
    Link* link = current_;
    for (int pass = 0; pass < kPasses; ++pass) {
      pump_once(&link->tunnel);
      if (queue_.empty() || link->tunnel.waits()) break;
    }
    after_link(link);
  }
  settle_clients();
  note_end();
}

void Relay::pump_once(Tunnel* tunnel) {
  for (const uint32_t id : due_) {
    Channel* channel = stream(id);
    if (channel == nullptr) continue;
    channel->due = false;
    if (channel->unacknowledged() == 0) continue;
    channel->acknowledge(tunnel);
    settle(channel, id);
  }
  due_.clear();
  while (!tunnel->is_full() && !queue_.empty()) {
    const uint32_t id = queue_.front();
    queue_.pop_front();
    Channel* channel = stream(id);
    if (channel == nullptr) continue;
    channel->queued = false;
    if (!channel->has_to_send()) continue;
    status_.bytes_out += channel->send_slice(tunnel);
    if (channel->has_to_send()) {
      channel->queued = true;
      queue_.push_back(id);
    }
  }
  tunnel->flush();
}

// It is over when the peer has been told all it needs to end as well.
void Relay::note_end() {
  if (status_.over == Over::ended && living_streams_ + living_datagrams_ > 0) status_.over = Over::no;
  if (status_.over != Over::no || living_streams_ + living_datagrams_ > 0) return;
  if (!kept_.empty() || (!leads_.empty() && !enough_)) return;
  if (streams_.empty() && datagrams_.empty() && !leads_on_ && !enough_) return;
  if (current_ != nullptr && current_->tunnel.waits()) return;
  status_.over = Over::ended;
  news();
}

}  // namespace virt::relay
