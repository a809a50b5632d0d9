// A channel as bytes, with what the kernel holds of it.
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <cerrno>
#include <utility>

#include "relay/channel.h"

namespace virt::relay {
namespace {

// A socket's buffers are limited by tcp_rmem and tcp_wmem, some MiB each.
constexpr size_t kMostBytes = 64 << 20;

enum Flag : uint8_t { kReadDone = 1, kWriteDone = 2, kAborted = 4 };

// What is to be written, with what comes before it because it is to be written again: bytes, and an end.
Tape again(const Tape& tape, std::string_view bytes, bool fin) {
  Tape all;
  all.restart(tape.begin() - bytes.size() - (fin ? 1 : 0));
  if (!bytes.empty()) all.append(bytes.data(), bytes.size());
  if (fin) all.append_mark(Mark::fin, 0);
  for (uint64_t at = tape.begin(); at < tape.end();) {
    const Tape::Run run = tape.run(at, tape.size());
    if (run.mark == Mark::none) {
      all.append(run.data, run.size);
    } else {
      all.append_mark(run.mark, static_cast<uint8_t>(*run.data));
    }
    at += run.size;
  }
  return all;
}

}  // namespace

bool Channel::drain() {
  while (fd_ && !read_done_ && !connecting_) {
    if (out_.size() > kMostBytes) return false;
    pollfd p{fd_.get(), POLLIN | POLLPRI | POLLRDHUP, 0};
    if (poll(&p, 1, 0) <= 0) return true;
    const uint64_t before = out_.end();
    const uint32_t window = window_;
    window_ = UINT32_MAX;
    read_some(static_cast<uint32_t>(p.revents));
    window_ = window;
    if (out_.end() == before) return true;
  }
  return true;
}

size_t Channel::unsent() const {
  int bytes = 0;
  // A unix socket's bytes are in its peer's queue at once.
  if (!fd_ || is_unix_ || connecting_ || ioctl(fd_.get(), SIOCOUTQ, &bytes) != 0 || bytes < 0) return 0;
  return static_cast<size_t>(bytes);
}

bool Channel::take_unsent(std::string* bytes) const {
  const size_t size = unsent();
  if (size == 0) return true;
  const int on = 1, off = TCP_REPAIR_OFF_NO_WP, queue = TCP_SEND_QUEUE, no_queue = TCP_NO_QUEUE;
  const int fd = fd_.get();
  if (setsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &on, sizeof on) != 0) return false;
  ssize_t n = -1;
  if (setsockopt(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, &queue, sizeof queue) == 0) {
    bytes->resize(size);
    n = recv(fd, bytes->data(), size, MSG_PEEK | MSG_DONTWAIT);
    setsockopt(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, &no_queue, sizeof no_queue);
  }
  setsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &off, sizeof off);
  // A FIN counts in the queue's length and is no byte.
  const size_t fin = write_done_ ? 1 : 0;
  if (n < 0 && !(errno == EAGAIN && size == fin)) return false;
  bytes->resize(n > 0 ? static_cast<size_t>(n) : 0);
  return bytes->size() + fin >= size;
}

bool Channel::encode(wire::Writer* out) const {
  std::string unsent_bytes;
  if (!take_unsent(&unsent_bytes)) return false;
  // What is put back was counted as written before.
  const bool puts_back = unsent() > 0 && !aborted_;
  const Tape in = puts_back ? again(in_, unsent_bytes, write_done_) : again(in_, {}, false);
  const bool write_done = write_done_ && !puts_back;
  out->number(static_cast<uint8_t>((read_done_ ? kReadDone : 0) | (write_done ? kWriteDone : 0) |
                                   (aborted_ ? kAborted : 0)));
  out->number(told_);
  out->number(static_cast<uint8_t>(write_error_));
  out_.encode(out);
  in.encode(out);
  return true;
}

bool Channel::decode(wire::Reader* in) {
  const auto flags = in->number<uint8_t>();
  told_ = in->number<uint64_t>();
  write_error_ = in->number<uint8_t>();
  if (!out_.decode(in, 2 * kMostBytes) || !in_.decode(in, 2 * kMostBytes)) return false;
  read_done_ = (flags & kReadDone) != 0;
  write_done_ = (flags & kWriteDone) != 0;
  aborted_ = (flags & kAborted) != 0;
  if (aborted_ && (!read_done_ || !write_done_)) return false;
  waits_to_write_ = !write_done_ && in_.size() > 0;
  thawed_ = true;
  return told_ <= in_.end();
}

// Offsets go back by what was counted as written.
bool Channel::put_back(std::string_view unread) {
  if (!thawed_ || fd_ || aborted_) return unread.empty();
  if (unread.size() + (write_done_ ? 1 : 0) > in_.begin()) return false;
  in_ = again(in_, unread, write_done_);
  write_done_ = false;
  waits_to_write_ = in_.size() > 0;
  return true;
}

}  // namespace virt::relay
