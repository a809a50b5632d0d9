#include "relay/channel.h"

#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>

namespace virt::relay {
namespace {

constexpr size_t kReadBytes = 256 << 10;
// Marks come on top of a full window.
constexpr uint32_t kMarksBytes = 8;

uint8_t as_byte(int error) { return error > 0 && error < 256 ? static_cast<uint8_t>(error) : ECONNRESET; }

}  // namespace

void Channel::set_socket(UniqueFd socket) {
  fd_ = std::move(socket);
  int domain = AF_UNSPEC;
  socklen_t size = sizeof domain;
  getsockopt(fd_.get(), SOL_SOCKET, SO_DOMAIN, &domain, &size);
  is_unix_ = domain == AF_UNIX;
  if (write_done_ && !aborted_) ::shutdown(fd_.get(), SHUT_WR);
  if (aborted_ || (read_done_ && write_done_)) fd_.reset();
}

void Channel::set_connecting(UniqueFd socket) {
  set_socket(std::move(socket));
  connecting_ = waits_to_write_ = true;
}

void Channel::connected() {
  connecting_ = false;
  write_some();
}

void Channel::prepare() {
  if (prepared_ || !fd_) return;
  prepared_ = true;
  const int on = 1;
  setsockopt(fd_.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  // An urgent byte that has been read out of band stays in the stream, to be passed over.
  int at_mark = 0, in_line = 0;
  socklen_t size = sizeof in_line;
  char byte;
  const bool was_read = !is_unix_ && getsockopt(fd_.get(), SOL_SOCKET, SO_OOBINLINE, &in_line, &size) == 0 &&
                        in_line == 0 && ioctl(fd_.get(), SIOCATMARK, &at_mark) == 0 && at_mark != 0 &&
                        recv(fd_.get(), &byte, 1, MSG_OOB | MSG_PEEK | MSG_DONTWAIT) < 0 && errno == EINVAL;
  // In line, an urgent byte can't be passed over by the read that comes just before it is noticed.
  setsockopt(fd_.get(), SOL_SOCKET, SO_OOBINLINE, &on, sizeof on);
  if (was_read) (void)!recv(fd_.get(), &byte, 1, MSG_DONTWAIT);
}

void Channel::lose_socket() { local_is_gone(Mark::reset, ECONNRESET); }

size_t Channel::room() const { return out_.size() < window_ ? window_ - out_.size() : 0; }

uint32_t Channel::interest() const {
  if (!fd_) return kUnwatched;
  // A unix socket has nothing to say before it is connected but that it is not.
  if (connecting_) return is_unix_ ? kUnwatched : uint32_t{EPOLLOUT};
  const uint32_t write = waits_to_write_ ? uint32_t{EPOLLOUT} : 0;
  if (read_done_) return write_done_ ? kUnwatched : write;
  if (room() == 0) return hangup_seen_ ? kUnwatched : write;
  return write | EPOLLIN | EPOLLRDHUP | (urgent_ahead_ ? 0 : uint32_t{EPOLLPRI});
}

void Channel::on_events(uint32_t events) {
  if (!fd_) return;
  if (connecting_) {
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(fd_.get(), SOL_SOCKET, SO_ERROR, &error, &size);
    error == 0 ? connected() : lose_socket();
    return;
  }
  const bool broken = (events & (EPOLLERR | EPOLLHUP)) != 0;
  if ((events & EPOLLOUT) != 0 || (broken && waits_to_write_)) write_some();
  if (!fd_) return;
  if (!read_done_) {
    if (room() == 0) {
      hangup_seen_ = hangup_seen_ || broken;
    } else if ((events & (EPOLLIN | EPOLLRDHUP)) != 0 || broken) {
      read_some(events);
    } else if ((events & EPOLLPRI) != 0) {
      urgent_ahead_ = true;
    }
    return;
  }
  if (!broken) return;
  int error = 0;
  socklen_t size = sizeof error;
  getsockopt(fd_.get(), SOL_SOCKET, SO_ERROR, &error, &size);
  if (error == 0) error = write_error_;
  if (error != 0 || !is_unix_) {
    local_is_gone(Mark::reset, error);
  } else {
    local_is_gone(Mark::gone, 0);
  }
}

// An urgent byte ends the read before it, and the next one begins with it (SIOCATMARK). If epoll says that there is something
// to read and nothing urgent, then the first byte isn't, and one read needs no question.
bool Channel::read_urgent() {
  int at_mark = 0;
  if (ioctl(fd_.get(), SIOCATMARK, &at_mark) != 0 || at_mark == 0) return false;
  char byte;
  if (recv(fd_.get(), &byte, 1, MSG_DONTWAIT) != 1) return false;
  out_.append_mark(Mark::urgent, static_cast<uint8_t>(byte));
  urgent_ahead_ = false;
  return true;
}

void Channel::read_some(uint32_t events) {
  if (((events & EPOLLPRI) != 0 || urgent_ahead_) && read_urgent()) return;
  size_t size;
  char* place = out_.room(std::min(room(), kReadBytes), &size);
  const ssize_t n = recv(fd_.get(), place, size, MSG_DONTWAIT);
  if (n > 0) {
    out_.commit(static_cast<size_t>(n));
  } else {
    read_ended(n, events);
  }
}

void Channel::read_ended(ssize_t result, uint32_t events) {
  if (result < 0 && (errno == EAGAIN || errno == EINTR)) return;
  const int error = result < 0 ? errno : write_error_;
  if (error != 0) {
    local_is_gone(Mark::reset, error);
  } else if (is_unix_ && (events & EPOLLHUP) != 0 && !write_done_) {
    local_is_gone(Mark::gone, 0);
  } else {
    out_.append_mark(Mark::fin, 0);
    read_done_ = true;
  }
}

void Channel::local_is_gone(Mark mark, int error) {
  out_.append_mark(mark, mark == Mark::reset ? as_byte(error) : 0);
  aborted_ = read_done_ = write_done_ = true;
  waits_to_write_ = connecting_ = false;
  in_.drop_to(in_.end());
  fd_.reset();
}

// What was sent to us before is still there to be read; the error is told after it.
void Channel::write_failed(int error) {
  write_error_ = error == EPIPE ? ECONNRESET : error;
  write_done_ = true;
  waits_to_write_ = false;
  in_.drop_to(in_.end());
  if (read_done_) local_is_gone(Mark::reset, write_error_);
}

void Channel::write_some() {
  waits_to_write_ = connecting_;
  if (connecting_) return;
  while (!write_done_) {
    const Tape::Run run = in_.run(in_.begin(), kReadBytes);
    if (run.size == 0) return;
    if (run.mark == Mark::none || run.mark == Mark::urgent) {
      const int flags = MSG_DONTWAIT | MSG_NOSIGNAL | (run.mark == Mark::urgent ? MSG_OOB : 0);
      const ssize_t n = send(fd_.get(), run.data, run.size, flags);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0 && errno == EAGAIN) {
        waits_to_write_ = true;
        return;
      }
      if (n < 0) {
        write_failed(errno);
        return;
      }
      in_.drop_to(in_.begin() + static_cast<size_t>(n));
      continue;
    }
    in_.drop_to(in_.begin() + 1);
    execute(run.mark);
  }
  if (was_reset_ || aborted_ || in_.size() == 0) return;
  // After an end, nothing but this.
  if (in_.run(in_.begin(), 1).mark == Mark::gone) {
    in_.drop_to(in_.begin() + 1);
    execute(Mark::gone);
  }
}

void Channel::execute(Mark mark) {
  if (mark == Mark::fin) {
    ::shutdown(fd_.get(), SHUT_WR);
    write_done_ = true;
    return;
  }
  // Whoever is at the socket learns the errno only if it is a reset: nothing else can be done to a socket from here.
  was_reset_ = write_done_ = read_done_ = true;
  connecting_ = false;
  if (mark == Mark::reset) {
    close_with_reset();
  } else {
    fd_.reset();
  }
  out_.restart(out_.end());
  sent_ = out_.end();
}

void Channel::close_with_reset() {
  const linger now{1, 0};
  setsockopt(fd_.get(), SOL_SOCKET, SO_LINGER, &now, sizeof now);
  fd_.reset();
}

bool Channel::resume(uint64_t received, uint32_t peer_window) {
  peer_window_ = peer_window;
  if (received >= out_.begin() && received <= out_.end()) {
    sent_ = received;
    return true;
  }
  // One of us is older than what was said before: bytes are missing.
  out_.restart(received);
  sent_ = received;
  if (!aborted_ && !was_reset_) {
    if (fd_) close_with_reset();
    local_is_gone(Mark::reset, ECONNRESET);
  } else if (aborted_) {
    out_.append_mark(Mark::reset, ECONNRESET);
  }
  return false;
}

bool Channel::has_to_send() const {
  return sent_ < out_.end() && sent_ < out_.begin() + std::min(window_, peer_window_) + kMarksBytes;
}

size_t Channel::send_slice(Tunnel* tunnel) {
  const uint64_t most = out_.begin() + std::min(window_, peer_window_) + kMarksBytes - sent_;
  const Tape::Run run = out_.run(sent_, static_cast<size_t>(std::min<uint64_t>(most, kSliceBytes)));
  tunnel->put({Type::data, run.mark, 0, id_, static_cast<uint32_t>(run.size), 0, sent_}, run.data);
  sent_ += run.size;
  return run.size;
}

bool Channel::receive(const Record& record, const char* payload) {
  if (record.offset != in_.end() || record.size == 0 || record.mark > Mark::gone) return false;
  if (record.mark != Mark::none && record.size != 1) return false;
  if (in_.end() + record.size > told_ + window_ + kMarksBytes) return false;
  const auto byte = static_cast<uint8_t>(*payload);
  if (was_reset_) return true;
  if (write_done_ && !aborted_ && write_error_ == 0 && record.mark != Mark::reset &&
      record.mark != Mark::gone) {
    return false;  // after its end
  }
  // Who has closed a socket has sent what was before it all the same.
  if (record.mark == Mark::reset || (record.mark == Mark::gone && write_done_)) {
    // What the socket does not take now would not have been received either.
    if (!write_done_ && in_.size() > 0) write_some();
    in_.restart(record.offset + 1);
    execute(record.mark);
    return true;
  }
  if (write_done_) {  // nobody is left to write to
    in_.restart(record.offset + record.size);
    return true;
  }
  size_t taken = 0;
  if (record.mark == Mark::none && in_.size() == 0 && !connecting_) {
    // The common case: from the tunnel's buffer into the socket.
    const ssize_t n = send(fd_.get(), payload, record.size, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0 && errno != EAGAIN && errno != EINTR) {
      in_.restart(record.offset + record.size);
      write_failed(errno);
      return true;
    }
    if (n > 0) taken = static_cast<size_t>(n);
    in_.restart(in_.begin() + taken);
    if (taken == record.size) return true;
  }
  if (record.mark == Mark::none) {
    in_.append(payload + taken, record.size - taken);
  } else {
    in_.append_mark(record.mark, byte);
  }
  if (!waits_to_write_) write_some();
  return true;
}

bool Channel::acknowledged(uint64_t offset) {
  if (offset > sent_) return false;
  if (offset > out_.begin()) out_.drop_to(offset);
  if (hangup_seen_ && room() > 0) hangup_seen_ = false;
  return true;
}

bool Channel::acknowledgement_is_due() const {
  const uint64_t n = unacknowledged();
  return n > 0 && (n >= std::min(window_ / 4, uint32_t{128} << 10) || write_done_);
}

void Channel::acknowledge(Tunnel* tunnel) {
  tunnel->put({Type::acked, Mark::none, 0, id_, 0, 0, in_.begin()}, nullptr);
  told_ = std::max(told_, in_.begin());
}

bool Channel::is_over() const {
  if (unacknowledged() > 0) return false;
  if (was_reset_) return true;
  return read_done_ && write_done_ && out_.size() == 0;
}

bool Channel::peer_has_ended() {
  const bool complete = aborted_ || (read_done_ && (write_done_ || in_.is_ended()));
  told_ = in_.end();
  out_.restart(out_.end());
  sent_ = out_.end();
  if (!complete) reset();
  return complete;
}

void Channel::reset() {
  if (fd_) close_with_reset();
  was_reset_ = read_done_ = write_done_ = true;
  connecting_ = false;
  out_.restart(out_.end());
  in_.restart(in_.end());
  told_ = in_.end();
}

void Channel::release_memory() {
  out_.release();
  in_.release();
}

}  // namespace virt::relay
