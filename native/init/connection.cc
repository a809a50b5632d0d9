#include "init/connection.h"

#include <fcntl.h>
#include <sys/socket.h>

#include <cerrno>

#include "sys/message.h"

namespace virt::init {

using protocol::FrameHeader;
using protocol::Type;

time_t monotonic_seconds() {
  timespec t{};
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec;
}

Connection::~Connection() {
  for (const auto& [at, fd] : out_fds_) ::close(fd);
}

bool Connection::receive() {
  char buffer[32 << 10];
  for (;;) {
    UniqueFd fds[kMaxPassedFds];
    size_t count = 0;
    const ssize_t n = receive_with_fds(fd_.get(), buffer, sizeof buffer, fds, &count);
    for (size_t i = 0; i < count; ++i) fds_.push_back(std::move(fds[i]));
    if (fds_.size() > kMaxPassedFds) return false;
    if (n == -EAGAIN) return true;
    if (n <= 0) return false;
    in_.append(buffer, static_cast<size_t>(n));
    if (in_.size() > protocol::kMostFrameBytes + sizeof(FrameHeader) + sizeof buffer) return false;
    if (in_.size() >= sizeof(FrameHeader)) {
      FrameHeader h;
      std::memcpy(&h, in_.data(), sizeof h);
      if (h.size > protocol::kMostFrameBytes) return false;
    }
    if (static_cast<size_t>(n) < sizeof buffer) return true;
  }
}

bool Connection::next(Frame* frame) {
  FrameHeader h;
  if (in_.size() < sizeof h) return false;
  std::memcpy(&h, in_.data(), sizeof h);
  if (in_.size() - sizeof h < h.size) return false;
  frame->type = static_cast<Type>(h.type);
  frame->number = h.number;
  frame->payload.assign(in_, sizeof h, h.size);
  in_.erase(0, sizeof h + h.size);
  return true;
}

std::vector<UniqueFd> Connection::take_fds() { return std::move(fds_); }

UniqueFd Connection::take_fd() {
  if (fds_.empty()) return {};
  UniqueFd fd = std::move(fds_.front());
  fds_.erase(fds_.begin());
  return fd;
}

void Connection::put(Type type, uint16_t flags, uint32_t number, std::string_view head,
                     std::string_view body) {
  if (!open()) return;
  FrameHeader h;
  h.size = static_cast<uint32_t>(head.size() + body.size());
  h.type = static_cast<uint16_t>(static_cast<uint16_t>(type) | flags);
  h.number = number;
  if (unsent() == 0) last_progress_ = monotonic_seconds();
  out_.append(reinterpret_cast<const char*>(&h), sizeof h);
  out_.append(head);
  out_.append(body);
}

void Connection::event(Type type, std::string_view payload) { put(type, 0, 0, {}, payload); }

void Connection::reply(const Frame& request, int error, std::string_view payload, int fd) {
  const int32_t status = -error;
  if (fd >= 0) out_fds_.emplace_back(out_.size(), fd);
  put(request.type, protocol::kReply, request.number,
      std::string_view(reinterpret_cast<const char*>(&status), sizeof status), payload);
}

void Connection::reply_with(const Frame& request, std::string_view payload, const std::vector<int>& fds) {
  const size_t before = out_fds_.size();
  for (const int fd : fds) {
    const int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (copy < 0) {
      const int error = errno;
      for (; out_fds_.size() > before; out_fds_.pop_back()) ::close(out_fds_.back().second);
      return reply(request, error);
    }
    out_fds_.emplace_back(out_.size(), copy);
  }
  reply(request, 0, payload);
}

bool Connection::flush() {
  while (unsent() > 0) {
    // Up to the next byte that descriptors ride on.
    int fds[kMaxPassedFds];
    size_t riding = 0, end = out_.size();
    for (const auto& [at, fd] : out_fds_) {
      if (at != sent_ || riding == kMaxPassedFds) {
        end = at;
        break;
      }
      fds[riding++] = fd;
    }
    iovec iov{out_.data() + sent_, end - sent_};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof fds)] = {};
    msghdr msg{};
    msg.msg_iov = &iov;
    msg.msg_iovlen = 1;
    if (riding > 0) {
      msg.msg_control = control;
      msg.msg_controllen = CMSG_SPACE(sizeof(int) * riding);
      cmsghdr* c = CMSG_FIRSTHDR(&msg);
      c->cmsg_level = SOL_SOCKET;
      c->cmsg_type = SCM_RIGHTS;
      c->cmsg_len = CMSG_LEN(sizeof(int) * riding);
      std::memcpy(CMSG_DATA(c), fds, sizeof(int) * riding);
    }
    const ssize_t n = sendmsg(fd_.get(), &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) return true;
    if (n <= 0) return false;
    for (; riding > 0; --riding) {
      ::close(out_fds_.front().second);
      out_fds_.pop_front();
    }
    sent_ += static_cast<size_t>(n);
    last_progress_ = monotonic_seconds();
  }
  out_.clear();
  sent_ = 0;
  return true;
}

}  // namespace virt::init
