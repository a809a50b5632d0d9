// A tunnel between a holder and a relay: one stream socket with a handshake and then sealed frames of records. Says what is
// to be read and written; whoever has it polls its descriptor. Not thread-safe; never blocks; no exceptions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>

#include "relay/handshake.h"
#include "relay/seal.h"
#include "relay/tape.h"
#include "sys/fd.h"

namespace virt::relay {

// begin: offset is the epoch, id the window, reserved which relay of that epoch it is (0 from a holder that has none).
// refused: offset is the epoch that there is. have: what was received of a channel.
// leads: the relay leads new clients of the listening socket `id` to the pod. opened: how many new clients it has heard of.
// ready: no more of these. data: bytes or a mark at an offset. acked: what is before the offset has been written.
// datagram: `address` bytes of a socket address before the payload. ended: a datagram channel is no more. leave: the relay goes,
// and another one will come, whenever that is. open: a new client of the listening socket `reserved` is this channel, the
// offset`th that there was. enough: the relay takes no more new clients; the holder says it back when none will come.
enum class Type : uint8_t {
  begin = 1,
  refused,
  have,
  leads,
  opened,
  ready,
  data,
  acked,
  datagram,
  ended,
  leave,
  open,
  enough
};

// What every record begins with; `size` bytes follow.
struct Record {
  Type type;
  Mark mark;
  uint16_t address;
  uint32_t id;
  uint32_t size;
  uint32_t reserved;
  uint64_t offset;
};
static_assert(sizeof(Record) == 24);

inline constexpr size_t kSliceBytes = 64 << 10;  // most of one channel's data in a record
inline constexpr size_t kFrameBytes =
    kSliceBytes + (4 << 10);  // of records in a frame; larger ones are no faster

enum class TunnelState { connecting, greeting, open, ended };

class Tunnel {
 public:
  // `connecting`: a connect(2) is under way. The socket need not be non-blocking.
  Tunnel(Role role, const Key& key, UniqueFd fd, bool connecting);

  [[nodiscard]] int fd() const { return fd_.get(); }
  [[nodiscard]] TunnelState state() const { return state_; }
  [[nodiscard]] bool other_version() const { return other_version_; }
  // The peer's doing: it is no such peer, or what it sent does not authenticate.
  [[nodiscard]] bool violated() const { return violated_; }

  // The descriptor is writable: finishes connecting, sends what waits.
  void on_writable();
  // Reads once what has come. Records can be had as long as next() says so.
  void on_readable();
  // The next record; `*payload` is good until the next call. False: none is whole yet, or the tunnel has ended.
  bool next(Record* record, char** payload);

  // Whether as much waits to be sent as should.
  [[nodiscard]] bool is_full() const { return tail_ - head_ >= kQueueBytes; }
  [[nodiscard]] bool waits() const { return tail_ != head_; }
  // Adds a record to the frame that is being made; record.size + address bytes of `payload`.
  void put(const Record& record, const void* payload);
  // The last of a record's payload can be put beside it: `address` first.
  void put(const Record& record, std::string_view address, std::string_view payload);
  // Seals the frame and sends what the socket takes.
  void flush();
  // No more of it: what the peer did must not be.
  void end_violated();
  void end() { state_ = TunnelState::ended; }

 private:
  static constexpr size_t kQueueBytes = 256 << 10;
  static constexpr size_t kReadBytes = 256 << 10;

  void begin_greeting();
  void take_hello();
  void queue(const void* data, size_t size);
  char* reserve(size_t size);
  void seal_frame();
  bool open_frame();

  Role role_;
  TunnelState state_;
  UniqueFd fd_;
  std::unique_ptr<Handshake> handshake_;
  Seal outgoing_, incoming_;
  bool other_version_ = false, violated_ = false;
  bool broken_ = false;  // nothing can be sent any more

  std::unique_ptr<char[]> out_;
  size_t out_size_ = 0, head_ = 0, tail_ = 0;
  size_t frame_ = SIZE_MAX;  // where the frame that is being made begins; it is not sent yet

  std::unique_ptr<char[]> in_;
  size_t in_size_ = 0, in_head_ = 0, in_tail_ = 0;
  size_t record_ = 0, frame_end_ = 0;  // of the frame whose records are being taken
};

}  // namespace virt::relay
