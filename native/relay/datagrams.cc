#include "relay/datagrams.h"

#include <sys/socket.h>

#include <cerrno>
#include <cstring>

namespace virt::relay {
namespace {

constexpr size_t kKeptBytes = 4 << 20;  // more than a socket's queue
constexpr int kPassedOver = 64;         // errors in a row that are no datagrams

class SocketEnd : public DatagramEnd {
 public:
  explicit SocketEnd(UniqueFd fd) : fd_(std::move(fd)) {
    sockaddr_storage peer;
    socklen_t size = sizeof peer;
    connected_ = getpeername(fd_.get(), reinterpret_cast<sockaddr*>(&peer), &size) == 0;
    socklen_t domain_size = sizeof domain_;
    getsockopt(fd_.get(), SOL_SOCKET, SO_DOMAIN, &domain_, &domain_size);
  }
  [[nodiscard]] int fd() const override { return fd_.get(); }

  ssize_t receive(char* payload, char* address, size_t* address_size) override {
    socklen_t size = connected_ ? 0 : kAddressBytes;
    auto* from = connected_ ? nullptr : reinterpret_cast<sockaddr*>(address);
    const ssize_t n =
        recvfrom(fd_.get(), payload, kDatagramBytes, MSG_DONTWAIT, from, connected_ ? nullptr : &size);
    *address_size = connected_ ? 0 : size;
    if (n >= 0) return n;
    // A connected unix socket whose peer has gone.
    return domain_ == AF_UNIX && errno == ECONNRESET ? -EPIPE : -errno;
  }

  bool send(std::string_view address, std::string_view payload) override {
    sockaddr_storage to{};
    std::memcpy(&to, address.data(), address.size());
    const bool named = !connected_ && !address.empty();
    const ssize_t n = sendto(fd_.get(), payload.data(), payload.size(), MSG_DONTWAIT | MSG_NOSIGNAL,
                             named ? reinterpret_cast<const sockaddr*>(&to) : nullptr,
                             named ? static_cast<socklen_t>(address.size()) : 0);
    return n >= 0 || domain_ != AF_UNIX || !connected_ || (errno != ECONNREFUSED && errno != EPIPE);
  }

 private:
  UniqueFd fd_;
  bool connected_ = false;
  int domain_ = AF_UNSPEC;
};

}  // namespace

std::unique_ptr<DatagramEnd> datagram_socket(UniqueFd socket) {
  return std::make_unique<SocketEnd>(std::move(socket));
}

void DatagramChannel::put(Tunnel* tunnel, std::string_view address, std::string_view payload) const {
  const auto size = static_cast<uint32_t>(address.size() + payload.size());
  tunnel->put({Type::datagram, Mark::none, static_cast<uint16_t>(address.size()), id_, size, 0, 0}, address,
              payload);
}

size_t DatagramChannel::pass_on(Tunnel* tunnel, char* scratch) {
  size_t bytes = 0;
  for (const Kept& kept : kept_) {
    put(tunnel, kept.address, kept.payload);
    bytes += kept.payload.size();
  }
  kept_.clear();
  int passed_over = 0;
  while (end_ && bytes < kSliceBytes && !tunnel->is_full() && passed_over < kPassedOver) {
    char address[kAddressBytes];
    size_t address_size = 0;
    const ssize_t n = end_->receive(scratch, address, &address_size);
    if (n == -EAGAIN) break;
    if (n == -EPIPE) {
      end();
      break;
    }
    if (n < 0) {
      ++passed_over;
      continue;
    }
    put(tunnel, {address, address_size}, {scratch, static_cast<size_t>(n)});
    bytes += static_cast<size_t>(n);
  }
  return bytes;
}

void DatagramChannel::receive(const Record& record, const char* payload) {
  if (record.address > kAddressBytes || !end_) return;
  if (!end_->send({payload, record.address}, {payload + record.address, record.size - record.address})) end();
}

void DatagramChannel::end() {
  end_.reset();
  over_ = true;
}

void DatagramChannel::drain(char* scratch) {
  size_t bytes = 0;
  int passed_over = 0;
  while (end_ && bytes < kKeptBytes && passed_over < kPassedOver) {
    char address[kAddressBytes];
    size_t address_size = 0;
    const ssize_t n = end_->receive(scratch, address, &address_size);
    if (n == -EAGAIN || n == -EPIPE) break;
    if (n < 0) {
      ++passed_over;
      continue;
    }
    kept_.push_back({std::string(address, address_size), std::string(scratch, static_cast<size_t>(n))});
    bytes += static_cast<size_t>(n) + 1;
  }
}

void DatagramChannel::encode(wire::Writer* out) const {
  out->number(static_cast<uint32_t>(kept_.size()));
  for (const Kept& kept : kept_) {
    out->text(kept.address);
    out->text(kept.payload);
  }
}

bool DatagramChannel::decode(wire::Reader* in) {
  const auto count = in->number<uint32_t>();
  for (uint32_t i = 0; i < count && in->ok(); ++i) {
    Kept kept;
    kept.address = in->text();
    kept.payload = in->text();
    if (kept.address.size() > kAddressBytes || kept.payload.size() > kDatagramBytes) return false;
    kept_.push_back(std::move(kept));
  }
  return in->ok();
}

}  // namespace virt::relay
