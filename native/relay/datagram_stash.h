// A datagram stash makes UDP sockets that are bound and not connected: they have their addresses of another host, may send
// to anybody, and receive from whoever had sent to them there, with the sender's address right.
//
// They live in a network namespace whose only way out is a TUN device (the kernel's tuntap.rst). What a program sends comes
// out of it here as a datagram with its destination; what is to reach the program is put into it. Needs /dev/net/tun. No
// exceptions: used by virt-init.
//
// What does not go through, and is dropped: broadcast and multicast either way, 0.0.0.0 and ::1 as a remote address,
// datagrams of more than 65487 bytes over IPv6. Addresses of link-local IPv6 and ::1 are refused. Sent with no address of
// its own (0.0.0.0, ::) a program sees one of the device's in IP_PKTINFO.
#pragma once

#include <cstdint>
#include <mutex>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "relay/namespace_thread.h"
#include "relay/rtnetlink.h"
#include "relay/stash_address.h"
#include "sys/fd.h"

namespace virt {

struct DatagramSocket {
  uint32_t id = 0;     // what datagrams of it are known by
  StashAddress local;  // AF_INET or AF_INET6, with a port; wildcards and v4-mapped addresses too
  // As the program had them: what can only be set before a socket is bound, or matters then.
  bool v6_only = false, reuse_address = false, reuse_port = false;
};

struct Datagram {
  uint32_t socket = 0;
  StashAddress remote;       // of the socket's family, as recvfrom(2) says it there
  std::string_view payload;  // received: valid until the next is
};

class DatagramStash {
 public:
  // Starts a thread (not from one that has a filter). `tun`: a descriptor of /dev/net/tun, O_PATH will do, where that path
  // is hidden: it is opened anew through /proc, for a TUN device is of the namespace it was opened in. 0 or errno
  // (ENOENT, ENODEV, EACCES: no TUN here).
  int open(int tun = -1);
  // Makes a program's socket, from any thread: blocking, close-on-exec. 0 or errno: EINVAL, EADDRINUSE, EEXIST (the id),
  // EOPNOTSUPP (an address that cannot be served), ENOTCONN (it is not open). The kernel chooses among sockets of one
  // address and port (SO_REUSEPORT); what they send is known by the first one's id.
  int make_socket(const DatagramSocket& wanted, UniqueFd* made);
  void forget(uint32_t id);
  // Readable when receive() has something to give. -1 before open().
  [[nodiscard]] int fd() const { return device_.get(); }
  // What a program has sent, not blocking; one thread at a time. False: nothing more for now.
  bool receive(Datagram* datagram);
  // Has a program receive. False: dropped, for such a datagram cannot be made, or the socket is unknown.
  bool send(const Datagram& datagram);

 private:
  int make_device(int tun);
  int make_ways();
  int make_inside(const DatagramSocket& wanted, UniqueFd* made);
  bool find(const StashAddress& local, DatagramSocket* found);

  NamespaceThread thread_;
  Rtnetlink net_;    // the thread's
  UniqueFd device_;  // what is written to it, the namespace receives
  int index_ = 0;
  char name_[16] = "";
  std::vector<char> packet_;
  std::mutex mutex_;
  std::unordered_map<uint32_t, DatagramSocket> by_id_;
  std::unordered_multimap<in_port_t, uint32_t> by_port_;
};

}  // namespace virt
