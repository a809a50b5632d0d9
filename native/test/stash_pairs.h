// What the tests of a stash share: addresses, names as the kernel says them, bytes through a pair.
#pragma once

#include <doctest/doctest.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/un.h>

#include <cerrno>
#include <cstring>
#include <string>

#include "relay/stash.h"
#include "sys/file.h"
#include "test/inet_text.h"
#include "test/own_namespace.h"

namespace virt::test {

// A link-local address, of the interface of this number.
inline StashAddress ip(const char* text, int port, uint32_t scope) {
  StashAddress a = ip(text, port);
  a.six().sin6_scope_id = scope;
  return a;
}

inline StashAddress unix_name(const std::string& name) {
  StashAddress a;
  auto& un = reinterpret_cast<sockaddr_un&>(a.storage);
  un.sun_family = AF_UNIX;
  std::memcpy(un.sun_path, name.data(), name.size());
  // As getsockname(2) says it.
  a.size =
      static_cast<socklen_t>(sizeof(sa_family_t) + name.size() + (!name.empty() && name[0] != '\0' ? 1 : 0));
  return a;
}

inline StashRequest request(const StashAddress& local, const StashAddress& peer, int type = SOCK_STREAM) {
  StashRequest r;
  r.family = local.size != 0 ? local.storage.ss_family : peer.storage.ss_family;
  r.type = type;
  r.local = local;
  r.peer = peer;
  return r;
}

inline std::string bytes(const StashAddress& a) {
  return {reinterpret_cast<const char*>(&a.storage), a.size};
}

inline std::string own_name(const UniqueFd& fd) {
  StashAddress a;
  a.size = sizeof a.storage;
  REQUIRE(getsockname(fd.get(), a.get(), &a.size) == 0);
  return bytes(a);
}

inline std::string peer_name(const UniqueFd& fd) {
  StashAddress a;
  a.size = sizeof a.storage;
  REQUIRE(getpeername(fd.get(), a.get(), &a.size) == 0);
  return bytes(a);
}

inline std::string unnamed() { return bytes(unix_name("")); }

inline bool readable(const UniqueFd& fd) {
  pollfd p{fd.get(), POLLIN, 0};
  return poll(&p, 1, 5000) == 1;
}

inline std::string receive(const UniqueFd& fd) {
  char data[256];
  REQUIRE(readable(fd));
  const ssize_t got = recv(fd.get(), data, sizeof data, 0);
  REQUIRE(got >= 0);
  return {data, static_cast<size_t>(got)};
}

inline void put(const UniqueFd& fd, const std::string& text) {
  REQUIRE(send(fd.get(), text.data(), text.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(text.size()));
}

inline int int_option(const UniqueFd& fd, int level, int name) {
  int value = -1;
  socklen_t size = sizeof value;
  CHECK(getsockopt(fd.get(), level, name, &value, &size) == 0);
  return value;
}

inline size_t open_descriptors() { return try_list_numbers("/proc/self/fd")->size(); }

// A pair, with its names and what goes through it looked at.
inline StashPair checked_pair(Stash& stash, const StashRequest& r) {
  StashPair p;
  REQUIRE(stash.pair(r, &p) == 0);
  CHECK(own_name(p.program) == bytes(r.local));
  CHECK(peer_name(p.program) == bytes(r.peer));
  CHECK((fcntl(p.program.get(), F_GETFL) & O_NONBLOCK) == 0);
  CHECK((fcntl(p.relay.get(), F_GETFL) & O_NONBLOCK) != 0);
  CHECK((fcntl(p.program.get(), F_GETFD) & FD_CLOEXEC) != 0);
  CHECK((fcntl(p.relay.get(), F_GETFD) & FD_CLOEXEC) != 0);
  put(p.relay, "queue");
  CHECK(receive(p.program) == "queue");
  put(p.program, "answer");
  CHECK(receive(p.relay) == "answer");
  return p;
}

}  // namespace virt::test
