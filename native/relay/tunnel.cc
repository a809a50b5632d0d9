#include "relay/tunnel.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace virt::relay {
namespace {

constexpr size_t kLengthBytes = 4;
constexpr size_t kSealedBytes = kLengthBytes + kFrameBytes + kSealTagBytes;

// A host that has vanished is to be noticed well before the time for a cut is over.
void set_options(int fd) {
  const int on = 1, idle_s = 5, interval_s = 3, count = 4, silence_ms = 20'000;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
  setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof idle_s);
  setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof interval_s);
  setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof count);
  setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &silence_ms, sizeof silence_ms);
}

}  // namespace

Tunnel::Tunnel(Role role, const Key& key, UniqueFd fd, bool connecting)
    : role_(role),
      state_(TunnelState::connecting),
      fd_(std::move(fd)),
      handshake_(std::make_unique<Handshake>(role, key)) {
  set_options(fd_.get());
  if (!connecting) begin_greeting();
}

void Tunnel::begin_greeting() {
  state_ = TunnelState::greeting;
  in_size_ = sizeof(Hello);
  in_ = std::make_unique<char[]>(in_size_);
  if (role_ != Role::relay) return;
  const Hello hello = handshake_->make();
  queue(&hello, sizeof hello);
  flush();
}

void Tunnel::end_violated() {
  violated_ = true;
  end();
}

void Tunnel::on_writable() {
  if (state_ == TunnelState::connecting) {
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(fd_.get(), SOL_SOCKET, SO_ERROR, &error, &size);
    if (error != 0) {
      end();
      return;
    }
    begin_greeting();
  }
  flush();
}

void Tunnel::on_readable() {
  if (state_ != TunnelState::greeting && state_ != TunnelState::open) return;
  if (in_head_ > 0) {  // what is left is less than a frame
    std::memmove(in_.get(), in_.get() + in_head_, in_tail_ - in_head_);
    in_tail_ -= in_head_;
    in_head_ = 0;
  }
  const ssize_t n = recv(fd_.get(), in_.get() + in_tail_, in_size_ - in_tail_, MSG_DONTWAIT);
  if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
    end();
    return;
  }
  if (n < 0) return;
  in_tail_ += static_cast<size_t>(n);
  if (state_ == TunnelState::greeting) take_hello();
}

void Tunnel::take_hello() {
  Hello theirs{};
  std::memcpy(&theirs, in_.get(), std::min(in_tail_, sizeof theirs));
  // Of another version perhaps no more comes.
  const size_t least = offsetof(Hello, role);
  if (in_tail_ < least) return;
  Greeting greeting = Greeting::refused;
  const bool whole = in_tail_ >= sizeof theirs;
  if (whole || theirs.version != kVersion) greeting = handshake_->take(theirs);
  if (!whole && greeting == Greeting::refused && theirs.version == kVersion) return;
  if (greeting == Greeting::other_version) {
    other_version_ = true;
    if (role_ == Role::holder) {
      const Hello answer = Handshake::version_only(role_);
      queue(&answer, sizeof answer);
      flush();
    }
    end();
    return;
  }
  if (greeting == Greeting::refused) {
    end_violated();
    return;
  }
  if (role_ == Role::holder) {
    const Hello ours = handshake_->make();
    queue(&ours, sizeof ours);
  }
  if (!handshake_->agree(&outgoing_, &incoming_)) {
    end_violated();
    return;
  }
  handshake_.reset();
  state_ = TunnelState::open;
  in_head_ = in_tail_ = 0;  // a hello is all that was read
  in_size_ = kSealedBytes + kReadBytes;
  in_.reset(new char[in_size_]);
  flush();
}

bool Tunnel::open_frame() {
  const size_t have = in_tail_ - in_head_;
  if (have < kLengthBytes) return false;
  char* clear = in_.get() + in_head_;
  uint32_t size;
  std::memcpy(&size, clear, sizeof size);
  if (size == 0 || size > kFrameBytes) {
    end_violated();
    return false;
  }
  if (have < kLengthBytes + size + kSealTagBytes) return false;
  if (!incoming_.open(clear + kLengthBytes, size, clear, kLengthBytes)) {
    end_violated();
    return false;
  }
  record_ = in_head_ + kLengthBytes;
  frame_end_ = record_ + size;
  in_head_ = frame_end_ + kSealTagBytes;
  return true;
}

bool Tunnel::next(Record* record, char** payload) {
  if (state_ != TunnelState::open) return false;
  if (record_ == frame_end_ && !open_frame()) {
    return false;
  }
  const size_t left = frame_end_ - record_;
  if (left < sizeof *record) {
    end_violated();
    return false;
  }
  std::memcpy(record, in_.get() + record_, sizeof *record);
  if (record->size > left - sizeof *record || record->address > record->size) {
    end_violated();
    return false;
  }
  *payload = in_.get() + record_ + sizeof *record;
  record_ += sizeof *record + record->size;
  return true;
}

char* Tunnel::reserve(size_t size) {
  if (out_size_ - tail_ < size) {
    const size_t used = tail_ - head_;
    if (head_ == 0 || out_size_ - used < size) {
      const size_t larger =
          std::max(used + size, state_ == TunnelState::open ? kQueueBytes + 2 * kSealedBytes : 0);
      std::unique_ptr<char[]> grown(new char[larger]);
      if (used > 0) std::memcpy(grown.get(), out_.get() + head_, used);
      out_ = std::move(grown);
      out_size_ = larger;
    } else {
      std::memmove(out_.get(), out_.get() + head_, used);
    }
    if (frame_ != SIZE_MAX) frame_ -= head_;
    tail_ = used;
    head_ = 0;
  }
  char* place = out_.get() + tail_;
  tail_ += size;
  return place;
}

void Tunnel::queue(const void* data, size_t size) { std::memcpy(reserve(size), data, size); }

void Tunnel::seal_frame() {
  if (frame_ == SIZE_MAX) return;
  reserve(kSealTagBytes);
  char* clear = out_.get() + frame_;
  const auto size = static_cast<uint32_t>(tail_ - frame_ - kLengthBytes - kSealTagBytes);
  std::memcpy(clear, &size, sizeof size);
  outgoing_.close(clear + kLengthBytes, size, clear, kLengthBytes);
  frame_ = SIZE_MAX;
}

void Tunnel::put(const Record& record, const void* payload) {
  put(record, {}, {static_cast<const char*>(payload), record.size});
}

void Tunnel::put(const Record& record, std::string_view address, std::string_view payload) {
  const size_t size = sizeof record + address.size() + payload.size();
  if (frame_ != SIZE_MAX && tail_ - frame_ - kLengthBytes + size > kFrameBytes) seal_frame();
  if (frame_ == SIZE_MAX) {
    reserve(kLengthBytes);
    frame_ = tail_ - kLengthBytes;
  }
  char* place = reserve(size);
  std::memcpy(place, &record, sizeof record);
  place += sizeof record;
  if (!address.empty()) std::memcpy(place, address.data(), address.size());
  if (!payload.empty()) std::memcpy(place + address.size(), payload.data(), payload.size());
}

void Tunnel::flush() {
  if (state_ == TunnelState::ended || state_ == TunnelState::connecting) return;
  seal_frame();
  while (!broken_ && head_ < tail_) {
    const ssize_t n = send(fd_.get(), out_.get() + head_, tail_ - head_, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) return;
    if (n < 0) {
      // What has come before the cut is read first; then there is an end of file.
      broken_ = true;
      ::shutdown(fd_.get(), SHUT_RDWR);
      break;
    }
    head_ += static_cast<size_t>(n);
  }
  head_ = tail_ = 0;
}

}  // namespace virt::relay
