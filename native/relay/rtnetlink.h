// A network namespace's devices, addresses, routes and rules (rtnetlink(7)), as far as a stash needs them. No external
// programs and no exceptions: used by virt-init. What is there already is no error.
#pragma once

#include <linux/netlink.h>

#include <cstddef>
#include <cstdint>

#include "sys/fd.h"

namespace virt {

// The loopback device's number in every namespace.
inline constexpr int kLoopback = 1;
// The table of the addresses that are a namespace's own.
inline constexpr uint32_t kLocalTable = 255;

class Rtnetlink {
 public:
  // For the network namespace of the calling thread. 0 or errno.
  int open();
  // Brings a device up; `mtu` 0 leaves it. For `from_anywhere` packets are taken that come from 127.0.0.0/8, or from an
  // address of this namespace.
  int bring_up(int device, uint32_t mtu = 0, bool from_anywhere = false);
  // Makes a device of this number that passes nothing on. EOPNOTSUPP: the kernel has no such kind.
  int make_device(int number);
  // `prefix` bits of `address` (AF_INET: 4 bytes, AF_INET6: 16) are this namespace's own, on this device.
  int add_local_route(int family, const void* address, unsigned prefix, int device);
  // Everything goes to this device, in a table of its own; `source` is what unbound sockets send from.
  int add_default_route(int family, int device, uint32_t table, const void* source);
  // The device's own address; for IPv6 it returns when packets reach it. ETIMEDOUT: they never did.
  int add_address(int family, const void* address, int device);
  // Packets that come in by `device` (kLoopback: those made here) are looked up in `table`.
  int add_rule(int family, uint32_t priority, const char* device, uint32_t table);
  // The rule that looks everything up in the local table first.
  int remove_local_rule(int family);

 private:
  struct Message;
  int ask(Message& message);       // EEXIST is no error
  int ask_once(Message& message);  // it is

  UniqueFd socket_;
  uint32_t sequence_ = 0;
};

}  // namespace virt
