// One stream connection of a relay: the local socket (a holder's is the outside one, a relay's the end of a pair) and the two
// tapes between it and the tunnel. Bytes, half-closes, resets and the urgent byte keep their order. Belongs to the relay's
// thread; never blocks; no exceptions.
//
// The two ends agree by offsets: what the peer has received, what it has written (acknowledged), and what may be sent (a
// window behind the last that was acknowledged). An end forgets bytes when they are acknowledged, so a tunnel may be cut
// anywhere.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "relay/tape.h"
#include "relay/tunnel.h"
#include "sys/fd.h"

namespace virt::relay {

class Channel {
 public:
  Channel(uint32_t id, uint32_t window) : id_(id), window_(window) {}

  [[nodiscard]] uint32_t id() const { return id_; }
  // Its socket; a state that was thawed goes on with it.
  void set_socket(UniqueFd socket);
  // A socket whose connect(2) is under way: what comes for it waits until connected() or lose_socket().
  void set_connecting(UniqueFd socket);
  void connected();
  [[nodiscard]] bool is_connecting() const { return connecting_; }
  // Sets its options, once, before it is read for the first time.
  void prepare();
  // It was thawed and lives at this end.
  [[nodiscard]] bool wants_socket() const {
    return thawed_ && !fd_ && !aborted_ && !(read_done_ && write_done_);
  }
  // What its program has not read yet comes first in the socket that it gets. False if that can't be.
  bool put_back(std::string_view unread);
  // There is none for it any more.
  void lose_socket();
  [[nodiscard]] int fd() const { return fd_.get(); }
  // Which events of the socket matter now (epoll_ctl(2)); kUnwatched: not even errors.
  static constexpr uint32_t kUnwatched = UINT32_MAX;
  [[nodiscard]] uint32_t interest() const;
  void on_events(uint32_t events);

  // What the peer has received, as a new tunnel begins. Is it what we can't go on from, the connection is reset.
  // False then.
  bool resume(uint64_t received, uint32_t peer_window);
  [[nodiscard]] uint64_t received() const { return in_.end(); }
  [[nodiscard]] bool has_to_send() const;
  // Adds the next record, a slice at most. Bytes of payload.
  size_t send_slice(Tunnel* tunnel);
  // A record of type data. False: no honest peer sends this.
  bool receive(const Record& record, const char* payload);
  bool acknowledged(uint64_t offset);

  // How much was written since it was last acknowledged.
  [[nodiscard]] uint64_t unacknowledged() const { return in_.begin() > told_ ? in_.begin() - told_ : 0; }
  // Whether the peer waits for it: it is much, or a mark.
  [[nodiscard]] bool acknowledgement_is_due() const;
  void acknowledge(Tunnel* tunnel);

  // Nothing more happens to it, and the peer knows.
  [[nodiscard]] bool is_over() const;
  // Nobody has the socket's other end: when all that was written there has arrived, it is closed.
  void let_go() {
    if (read_done_ && !write_done_ && out_.size() == 0) local_is_gone(Mark::gone, 0);
  }
  // By the peer.
  [[nodiscard]] bool was_reset() const { return was_reset_; }
  // The peer has nothing of it any more, so it has got all that it wanted; else it is reset, and this
  // false.
  bool peer_has_ended();
  // The end, both ways, with a RST for whoever is at the socket.
  void reset();
  // Whether there is something to do for it a little later: a small acknowledgement, memory to give back.
  [[nodiscard]] bool wants_tick(bool connected) const {
    return (connected && unacknowledged() > 0) || out_.is_idle() || in_.is_idle();
  }
  void release_memory();

  [[nodiscard]] uint64_t bytes_in() const { return in_.end(); }
  [[nodiscard]] uint64_t bytes_out() const { return out_.end(); }

  // Reads what the socket still has, whatever the window says. False if it is more than a socket can have.
  bool drain();
  // Bytes that the socket took but its peer's kernel did not (yet).
  [[nodiscard]] size_t unsent() const;
  // False: unsent bytes can't be had back from the kernel (tcp(7), TCP_REPAIR needs CAP_NET_ADMIN over the socket's network).
  bool encode(wire::Writer* out) const;
  bool decode(wire::Reader* in);

  // The relay's own notes.
  uint32_t watched = kUnwatched;
  uint64_t listed_by = 0;
  bool queued = false, due = false, noted = false;
  // Of a new client: the how manieth it was, the listening socket that it came to, and whether it is to be led there still.
  uint64_t opened = 0;
  uint32_t listener = 0;
  bool to_connect = false;

 private:
  void read_some(uint32_t events);
  bool read_urgent();
  void read_ended(ssize_t result, uint32_t events);
  void write_some();
  void write_failed(int error);
  void execute(Mark mark);
  // The local end is no more: tells the peer after what was read, and throws away what comes.
  void local_is_gone(Mark mark, int error);
  void close_with_reset();
  [[nodiscard]] size_t room() const;
  bool take_unsent(std::string* bytes) const;

  const uint32_t id_;
  uint32_t window_, peer_window_ = 0;
  UniqueFd fd_;
  Tape out_, in_;      // from the socket, to the socket
  uint64_t sent_ = 0;  // of out_, through this tunnel or known to have come through another
  uint64_t told_ = 0;  // of in_, acknowledged
  int write_error_ = 0;
  bool is_unix_ = false;
  bool read_done_ = false;   // the out tape ends with fin, reset or gone
  bool write_done_ = false;  // fin was written, or nobody is left to write to
  bool aborted_ = false;     // our reset or gone is on the tape
  bool was_reset_ = false;   // the peer's was executed
  bool waits_to_write_ = false;
  bool hangup_seen_ = false;  // an error or hangup waits until there is room to read
  bool thawed_ = false, prepared_ = false, connecting_ = false;
  bool urgent_ahead_ = false;  // an urgent byte is announced that can't be read yet
};

}  // namespace virt::relay
