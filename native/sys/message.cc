#include "sys/message.h"

#include <sys/socket.h>

#include <cerrno>
#include <cstring>

namespace virt {

int send_with_fds(int socket, const void* data, size_t size, const int* fds, size_t fd_count) {
  const char* p = static_cast<const char*>(data);
  if (fd_count > kMaxPassedFds) return -EINVAL;
  while (size > 0) {
    iovec iov{const_cast<char*>(p), size};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * kMaxPassedFds)] = {};
    msghdr msg{};
    msg.msg_iov = &iov;
    msg.msg_iovlen = 1;
    if (fd_count > 0) {
      msg.msg_control = control;
      msg.msg_controllen = CMSG_SPACE(sizeof(int) * fd_count);
      cmsghdr* c = CMSG_FIRSTHDR(&msg);
      c->cmsg_level = SOL_SOCKET;
      c->cmsg_type = SCM_RIGHTS;
      c->cmsg_len = CMSG_LEN(sizeof(int) * fd_count);
      std::memcpy(CMSG_DATA(c), fds, sizeof(int) * fd_count);
    }
    const ssize_t n = sendmsg(socket, &msg, MSG_NOSIGNAL);
    if (n < 0) {
      if (errno == EINTR) continue;
      return -errno;
    }
    fd_count = 0;
    p += n;
    size -= static_cast<size_t>(n);
  }
  return 0;
}

ssize_t receive_with_fds(int socket, void* data, size_t size, UniqueFd* fds, size_t* fd_count) {
  iovec iov{data, size};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * kMaxPassedFds)];
  msghdr msg{};
  msg.msg_iov = &iov;
  msg.msg_iovlen = 1;
  msg.msg_control = control;
  msg.msg_controllen = sizeof control;
  ssize_t n;
  do {
    n = recvmsg(socket, &msg, MSG_CMSG_CLOEXEC);
  } while (n < 0 && errno == EINTR);
  if (n < 0) return -errno;
  for (cmsghdr* c = CMSG_FIRSTHDR(&msg); c != nullptr; c = CMSG_NXTHDR(&msg, c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
    const size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int fd;
      std::memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof fd);
      UniqueFd owned(fd);
      if (*fd_count < kMaxPassedFds) fds[(*fd_count)++] = std::move(owned);
    }
  }
  return n;
}

int receive_all(int socket, void* data, size_t size, UniqueFd* fds, size_t* fd_count) {
  char* p = static_cast<char*>(data);
  while (size > 0) {
    const ssize_t n = receive_with_fds(socket, p, size, fds, fd_count);
    if (n < 0) return static_cast<int>(n);
    if (n == 0) return -EPIPE;
    p += n;
    size -= static_cast<size_t>(n);
  }
  return 0;
}

}  // namespace virt
