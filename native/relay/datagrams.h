// A datagram channel: frames with their boundaries and addresses, dropped when there is no room, never waited for. Whoever has
// no socket for it (a translator of IP packets) gives a DatagramEnd of its own. Belongs to the relay's thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "relay/tunnel.h"
#include "sys/fd.h"

namespace virt::relay {

inline constexpr size_t kAddressBytes = 128;              // a sockaddr_storage
inline constexpr size_t kDatagramBytes = (64 << 10) - 1;  // UDP's most, and a unix socket's that goes through

class DatagramEnd {
 public:
  virtual ~DatagramEnd() = default;
  // What to poll for EPOLLIN.
  [[nodiscard]] virtual int fd() const = 0;
  // The next datagram: bytes of `payload` (room for kDatagramBytes) and whom it is from or, on a relay, for, as a sockaddr
  // (room for kAddressBytes; nothing if the socket is connected). -EAGAIN: none now; -EPIPE: never any more; any other
  // -errno is passed over.
  virtual ssize_t receive(char* payload, char* address, size_t* address_size) = 0;
  // Sends, or drops. False: nothing can ever be sent.
  virtual bool send(std::string_view address, std::string_view payload) = 0;
};

// recvfrom(2) and sendto(2) on a socket, without addresses if it is connected.
std::unique_ptr<DatagramEnd> datagram_socket(UniqueFd socket);

class DatagramChannel {
 public:
  explicit DatagramChannel(uint32_t id) : id_(id) {}

  void set_end(std::unique_ptr<DatagramEnd> end) { end_ = std::move(end); }
  [[nodiscard]] int fd() const { return end_ ? end_->fd() : -1; }
  // Sends what there is, up to a slice, as long as the tunnel has room. `scratch` has room for kDatagramBytes. Bytes.
  size_t pass_on(Tunnel* tunnel, char* scratch);
  void receive(const Record& record, const char* payload);
  [[nodiscard]] bool is_over() const { return over_; }
  void end();
  // Takes what waits at the socket, for the image.
  void drain(char* scratch);
  void encode(wire::Writer* out) const;
  bool decode(wire::Reader* in);

  uint32_t watched = UINT32_MAX;
  uint64_t listed_by = 0;

 private:
  struct Kept {
    std::string address, payload;
  };
  void put(Tunnel* tunnel, std::string_view address, std::string_view payload) const;

  const uint32_t id_;
  std::unique_ptr<DatagramEnd> end_;
  std::vector<Kept> kept_;
  bool over_ = false;
};

}  // namespace virt::relay
