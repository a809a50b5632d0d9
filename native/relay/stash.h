// A stash makes socket pairs whose one end, the program's, has the addresses that it had on another host: getsockname(2)
// and getpeername(2) say so, though this host has none of them. The other end is the relay's.
//
// They are made in tiny network namespaces ("rooms") in which every address is local, by a thread that lives there and
// has an empty file system of its own for the names of unix sockets; nothing is seen of either on the host. Sockets
// outlive the stash. Whoever owns the user namespace may have one. No exceptions: used by virt-init.
//
// What a program can still tell: SO_PEERCRED of a unix socket is this process, TCP_INFO is that of a loopback connection,
// SO_NETNS_COOKIE another one, and ioctls about interfaces see only the room's (netdevice(7)).
#pragma once

#include <sys/socket.h>

#include <cstdint>
#include <vector>

#include "relay/namespace_thread.h"
#include "relay/rtnetlink.h"
#include "relay/stash_address.h"
#include "sys/fd.h"

namespace virt {

struct StashRequest {
  int family = AF_UNSPEC;  // AF_INET, AF_INET6 (with v4-mapped addresses too) or AF_UNIX
  int type = SOCK_STREAM;  // SOCK_STREAM, SOCK_DGRAM, and for AF_UNIX SOCK_SEQPACKET
  // As the program's end has them. Both are needed but for AF_UNIX, where none means unnamed.
  StashAddress local, peer;
  // IPV6_V6ONLY, which cannot be set any more once a socket is bound. The kernel itself sets it for every socket that
  // is bound to an address of IPv6 proper.
  bool v6_only = false;
};

struct StashPair {
  UniqueFd program;  // blocking, close-on-exec, options as of a new socket but IPV6_V6ONLY
  UniqueFd relay;    // not blocking, close-on-exec; nobody else has written to it yet
  // The interface of a link-local address could not be made: its scope id is that of the loopback device.
  bool scope_kept = true;
};

// A network namespace in which every address is local.
struct StashRoom {
  UniqueFd space;
  Rtnetlink net;
  // Who accepted last still listens, on this address: of thousands of clients each would look at all that were before.
  UniqueFd listener;
  StashAddress listens;
};

class Stash {
 public:
  // Starts the thread (not from one that has a filter) and makes the first room. 0 or errno (EPERM).
  int open();
  // Makes a pair, from any thread. 0 or errno: EINVAL (no such addresses, or an address is missing), EAFNOSUPPORT,
  // ESOCKTNOSUPPORT, EOPNOTSUPP (a TCP socket connected to itself), EADDRNOTAVAIL (no room where these are free),
  // ETIMEDOUT, EMFILE, ENOSYS (unix paths, before Linux 5.2).
  //   StashRequest r{.family = AF_INET, .local = there, .peer = client};
  //   if (int error = stash.pair(r, &pair); error != 0) …
  int pair(const StashRequest& request, StashPair* made);
  // How many rooms there are: a second one is made when the first has a socket of the same addresses.
  size_t rooms();

 private:
  int make_files();
  int make_room();
  int enter_room(size_t room);
  int make_pair(const StashRequest& request, StashPair* made);

  NamespaceThread thread_;
  // From here on: only the thread, once it runs.
  std::vector<StashRoom> rooms_;
  size_t inside_ = 0;  // the room that the thread is in
  UniqueFd files_;     // the mount that is its root
  int no_files_ = 0;   // why there is none
};

}  // namespace virt
