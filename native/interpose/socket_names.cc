#include "interpose/socket_names.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>

#include "interpose/caller.h"

namespace virt {
namespace {

constexpr size_t kMostPeers = 16384;

uint64_t cookie_of(int socket) {
  uint64_t cookie = 0;
  socklen_t size = sizeof cookie;
  return getsockopt(socket, SOL_SOCKET, SO_COOKIE, &cookie, &size) == 0 ? cookie : 0;
}

// As the kernel fills in an address: as much as there is room for, and how long it is.
void give_address(const Listener& listener, const Call& call, const sockaddr_storage& a) {
  const socklen_t size = a.ss_family == AF_INET ? sizeof(sockaddr_in) : sizeof(sockaddr_in6);
  const auto to = static_cast<off_t>(call.argument(1)), length = static_cast<off_t>(call.argument(2));
  const UniqueFd memory(open(proc_file(call.question.tid, "mem").c_str(), O_RDWR | O_CLOEXEC));
  int room = 0;
  const bool told = memory && listener.waits(call.question) &&
                    pread(memory.get(), &room, sizeof room, length) == sizeof room && room >= 0;
  if (!told) {
    (void)listener.let_pass(call.question);
    return;
  }
  const auto part = static_cast<ssize_t>(std::min<socklen_t>(size, static_cast<socklen_t>(room)));
  const bool written = pwrite(memory.get(), &a, static_cast<size_t>(part), to) == part &&
                       pwrite(memory.get(), &size, sizeof size, length) == sizeof size;
  (void)listener.answer(call.question, 0, written ? 0 : EFAULT);
}

}  // namespace

void SocketNames::remember(int socket, const sockaddr_storage& asked) {
  const uint64_t cookie = cookie_of(socket);
  const std::lock_guard lock(mutex_);
  if (peers_.size() >= kMostPeers) peers_.clear();
  peers_[cookie] = asked;
}

bool SocketNames::knows(int socket) {
  sockaddr_storage unused{};
  return asked_peer(socket, &unused);
}

bool SocketNames::asked_peer(int socket, sockaddr_storage* address) {
  const uint64_t cookie = cookie_of(socket);
  const std::lock_guard lock(mutex_);
  const auto found = peers_.find(cookie);
  if (found == peers_.end()) return false;
  *address = found->second;
  return true;
}

void SocketNames::answer(const Listener& listener, const Call& call, const RuleSet& rules) {
  const bool peer = call.entry->number == SYS_getpeername;
  const int socket = call.socket.get();
  sockaddr_storage a{};
  socklen_t size = sizeof a;
  const int failed = peer ? getpeername(socket, reinterpret_cast<sockaddr*>(&a), &size)
                          : getsockname(socket, reinterpret_cast<sockaddr*>(&a), &size);
  const bool inet = failed == 0 && (a.ss_family == AF_INET || a.ss_family == AF_INET6);
  const bool other = inet && ((peer && asked_peer(socket, &a)) ||
                              rules.original(peer ? CallKind::connect : CallKind::bind, &a));
  if (other)
    give_address(listener, call, a);
  else
    (void)listener.let_pass(call.question);
}

}  // namespace virt
