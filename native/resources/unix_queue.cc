#include "resources/unix_queue.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/scope_exit.h"
#include "resources/unix_name.h"
#include "resources/unix_socket.h"

namespace virt {
namespace {

constexpr size_t kMostMessageBytes = 4 << 20;

struct Message {
  std::string bytes, from;  // from: the sender's name, of datagrams
};

// Everything that waits in a socket, message by message (one for a stream), without taking it (SO_PEEK_OFF).
// False if something cannot be read that way: a descriptor in flight.
bool peek_queue(int fd, int type, std::vector<Message>* messages) {
  int before = -1;
  socklen_t size = sizeof before;
  getsockopt(fd, SOL_SOCKET, SO_PEEK_OFF, &before, &size);
  const auto set_offset = [fd](int offset) {
    check(setsockopt(fd, SOL_SOCKET, SO_PEEK_OFF, &offset, sizeof offset), "setsockopt",
          "looking into a unix socket");
  };
  set_offset(0);
  const ScopeExit restore([&] { setsockopt(fd, SOL_SOCKET, SO_PEEK_OFF, &before, sizeof before); });
  std::string buffer(256 << 10, '\0');
  // Nothing read is the end of a stream, or of packets after a shutdown; else it is an empty message, which
  // the kernel shows once to those who look with an offset.
  pollfd p{fd, POLLRDHUP, 0};
  const bool ends_with_nothing =
      type == SOCK_STREAM || (poll(&p, 1, 0) > 0 && (p.revents & (POLLRDHUP | POLLHUP)) != 0);
  for (;;) {
    iovec iov{buffer.data(), buffer.size()};
    sockaddr_un sender{};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * 256)];
    msghdr msg{};
    msg.msg_name = &sender;
    msg.msg_namelen = sizeof sender;
    msg.msg_iov = &iov;
    msg.msg_iovlen = 1;
    msg.msg_control = control;
    msg.msg_controllen = sizeof control;
    const ssize_t n = recvmsg(fd, &msg, MSG_PEEK | MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && (errno == EAGAIN || errno == ENOTCONN || errno == EINVAL || errno == ECONNRESET))
      return true;
    if (n < 0) throw OsError("recvmsg", errno, "looking into a unix socket");
    bool rights = false;
    for (cmsghdr* c = CMSG_FIRSTHDR(&msg); c != nullptr; c = CMSG_NXTHDR(&msg, c)) {
      if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
      rights = true;  // peeking gave us copies: close them
      for (size_t i = 0; i < (c->cmsg_len - CMSG_LEN(0)) / sizeof(int); ++i) {
        int copy;
        std::memcpy(&copy, CMSG_DATA(c) + i * sizeof(int), sizeof copy);
        close(copy);
      }
    }
    if (rights) return false;
    if ((msg.msg_flags & MSG_TRUNC) != 0) {
      if (buffer.size() >= kMostMessageBytes) return false;
      buffer.resize(buffer.size() * 2);
      set_offset(0);
      messages->clear();
      continue;
    }
    if (n == 0 && ends_with_nothing) return true;
    if (type == SOCK_STREAM && !messages->empty()) {
      messages->back().bytes.append(buffer, 0, static_cast<size_t>(n));
    } else {
      messages->push_back({buffer.substr(0, static_cast<size_t>(n)),
                           type == SOCK_DGRAM ? unix_name_from(sender, msg.msg_namelen) : std::string()});
    }
  }
}

}  // namespace

void capture_unix_queue(Handle& h, CaptureContext& c, int type) {
  std::vector<Message> messages;
  if (!peek_queue(h.dup.get(), type, &messages)) {
    c.block(h, "ERR_FD_IN_FLIGHT", "a unix socket with a descriptor (SCM_RIGHTS) waiting in it",
            "try again when the program has received it");
    return;
  }
  if (messages.empty()) return;
  Value queue = Value::list(), senders = Value::list();
  bool named = false;
  for (const Message& m : messages) {
    queue.push(Value::bytes(m.bytes.data(), m.bytes.size()));
    senders.push(Value::bytes(m.from.data(), m.from.size()));
    named = named || !m.from.empty();
  }
  h.record.set("queue", std::move(queue));
  if (named) h.record.set("senders", std::move(senders));
}

namespace {

// Lets a socket send a message of this size, whatever room its sender had left since.
class RoomToSend {
 public:
  RoomToSend(int fd, size_t size) : fd_(fd) {
    socklen_t length = sizeof before_;
    check(getsockopt(fd, SOL_SOCKET, SO_SNDBUF, &before_, &length), "getsockopt", "examining a unix socket");
    set(static_cast<size_t>(before_) / 2 + size * 2);
  }
  ~RoomToSend() { set(static_cast<size_t>(before_) / 2); }  // the kernel doubles what it is told
  RoomToSend(const RoomToSend&) = delete;
  RoomToSend& operator=(const RoomToSend&) = delete;

 private:
  void set(size_t size) const {
    const int value = static_cast<int>(std::min<size_t>(size, kMostMessageBytes));
    setsockopt(fd_, SOL_SOCKET, SO_SNDBUF, &value, sizeof value);
  }
  int fd_, before_ = 0;
};

void put(int fd, const std::string& bytes, int type) {
  const RoomToSend room(fd, bytes.size());
  // A stream may take it in pieces; a message, an empty one too, goes in one.
  for (size_t done = 0;;) {
    const ssize_t n = send(fd, bytes.data() + done, bytes.size() - done, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw OsError("send", errno, "putting back what waited in a unix socket");
    done += static_cast<size_t>(n);
    if (type != SOCK_STREAM || done >= bytes.size()) return;
  }
}

}  // namespace

void fill_unix_queue(int into, const Value& queue, int type) {
  for (const Value& message : queue.as_list()) put(into, message.as_bytes(), type);
}

void fill_datagrams(const Value& record, RebuildContext& c, int type) {
  const Value* path = record.find("path");
  const std::string& to = path != nullptr ? path->as_string() : record.at("name").as_bytes();
  const Value* senders = record.find("senders");
  const auto& queue = record.at("queue").as_list();
  for (size_t i = 0; i < queue.size(); ++i) {
    const std::string from = senders != nullptr ? senders->as_list().at(i).as_bytes() : std::string();
    const std::string& bytes = queue[i].as_bytes();
    const auto known = c.unix_names.find(from);
    const bool own = from.empty() || known == c.unix_names.end();
    const int sender = own ? make_unix_socket(c, type) : known->second;
    // Sent in the pod, where the name is, and by sendto(2): whom the sender is connected to is its own affair.
    const RemoteAddress message = c.lend(bytes);
    const UniqueFd mine = c.take(sender);
    const RoomToSend room(mine.get(), bytes.size());
    Batch b = c.batch();
    if (own && !from.empty() && from[0] == '\0') {
      const auto [name, name_size] = unix_address(from);
      b.call(SYS_bind, sender, b.in(&name, sizeof name), name_size);
    }
    size_t sent = 0;
    with_address(b, to, [&](RemoteAddress at, socklen_t size) {
      sent = b.call(SYS_sendto, sender, message, bytes.size(), MSG_DONTWAIT, at, size);
    });
    if (own) b.call(SYS_close, sender);
    c.run(b);
    c.take_back(message, bytes.size());
    b.must(sent, "sendto", "putting back a datagram");
  }
}

}  // namespace virt
