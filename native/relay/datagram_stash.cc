#include "relay/datagram_stash.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/uio.h>

#include <cerrno>
#include <cstdio>
#include <string>

#include "relay/udp_packet.h"

namespace virt {
namespace {

constexpr size_t kMostPacketBytes = 65535;
constexpr uint32_t kOutTable = 100;
constexpr uint32_t kInPriority = 10, kOutPriority = 20;

// What sockets that are bound to no address send from, inside: the dummy address of RFC 7600, and a private one.
const in_addr kOurFour{htonl(0xc0000008)};
constexpr in6_addr kOurSix{{{0xfd, 'v', 'i', 'r', 't', '-', 'r', 'u', 'n', 0, 0, 0, 0, 0, 0, 1}}};

bool set(const UniqueFd& fd, int level, int name, int value) {
  return setsockopt(fd.get(), level, name, &value, sizeof value) == 0;
}

// Packets of IPv6's loopback are dropped at any other device (RFC 4291, 2.5.3), and link-local ones are of one device.
bool can_be_served(const StashAddress& local) {
  const StashAddress p = plain(local);
  if (is_wildcard(p)) return true;
  return is_one_host(p) && (p.family() == AF_INET || (!IN6_IS_ADDR_LOOPBACK(&p.six().sin6_addr) &&
                                                      !IN6_IS_ADDR_LINKLOCAL(&p.six().sin6_addr)));
}

}  // namespace

int DatagramStash::make_device(int tun) {
  const std::string path = tun >= 0 ? "/proc/thread-self/fd/" + std::to_string(tun) : "/dev/net/tun";
  UniqueFd device(::open(path.c_str(), O_RDWR | O_CLOEXEC | O_NONBLOCK));
  if (!device) return errno;
  ifreq request{};
  std::snprintf(request.ifr_name, sizeof request.ifr_name, "stash%%d");
  request.ifr_flags = IFF_TUN | IFF_NO_PI;
  if (ioctl(device.get(), TUNSETIFF, &request) != 0) return errno;
  std::snprintf(name_, sizeof name_, "%s", request.ifr_name);
  index_ = static_cast<int>(if_nametoindex(name_));
  if (index_ == 0) return errno;
  device_ = std::move(device);
  return 0;
}

// What is sent here goes out by the device, even to an address that is our own: it was the old host's, and others there
// may have it too. What comes in by the device looks for a socket here.
int DatagramStash::make_ways() {
  int error = net_.open();
  if (error == 0) error = net_.bring_up(kLoopback);
  if (error == 0) error = net_.bring_up(index_, kMostPacketBytes, true);
  for (const int family : {AF_INET, AF_INET6}) {
    const void* ours = family == AF_INET ? static_cast<const void*>(&kOurFour) : &kOurSix;
    int e = error;
    if (e == 0) e = net_.add_address(family, ours, index_);
    if (e == 0) e = net_.add_default_route(family, index_, kOutTable, ours);
    if (e == 0) e = net_.add_rule(family, kInPriority, name_, kLocalTable);
    if (e == 0) e = net_.add_rule(family, kOutPriority, "lo", kOutTable);
    if (e == 0) e = net_.remove_local_rule(family);
    // A kernel without IPv6 serves IPv4.
    if (family == AF_INET || (e != EOPNOTSUPP && e != EAFNOSUPPORT)) error = e;
  }
  return error;
}

int DatagramStash::open(int tun) {
  if (const int error = thread_.start(); error != 0) return error;
  const int error = thread_.run([&] {
    const int made = make_device(tun);
    return made != 0 ? made : make_ways();
  });
  if (error != 0) {
    device_.reset();
    thread_.stop();
    return error;
  }
  packet_.resize(kMostPacketBytes + 1);
  return 0;
}

int DatagramStash::make_inside(const DatagramSocket& wanted, UniqueFd* made) {
  const bool v6 = wanted.local.family() == AF_INET6;
  const StashAddress local = plain(wanted.local);
  if (!is_wildcard(local)) {
    const bool four = local.family() == AF_INET;
    const void* address = four ? static_cast<const void*>(&local.four().sin_addr) : &local.six().sin6_addr;
    const int error = net_.add_local_route(local.family(), address, four ? 32 : 128, kLoopback);
    if (error != 0) return error;
  }
  UniqueFd fd(socket(wanted.local.family(), SOCK_DGRAM | SOCK_CLOEXEC, 0));
  const int level = v6 ? IPPROTO_IPV6 : IPPROTO_IP, anywhere = v6 ? IPV6_FREEBIND : IP_FREEBIND;
  if (!fd || !set(fd, SOL_SOCKET, SO_REUSEADDR, wanted.reuse_address ? 1 : 0) ||
      !set(fd, SOL_SOCKET, SO_REUSEPORT, wanted.reuse_port ? 1 : 0) ||
      (v6 && !set(fd, IPPROTO_IPV6, IPV6_V6ONLY, wanted.v6_only ? 1 : 0)) || !set(fd, level, anywhere, 1) ||
      bind(fd.get(), wanted.local.get(), wanted.local.size) != 0 || !set(fd, level, anywhere, 0)) {
    return errno;
  }
  *made = std::move(fd);
  return 0;
}

int DatagramStash::make_socket(const DatagramSocket& wanted, UniqueFd* made) {
  if (!device_) return ENOTCONN;
  if (!is_inet(wanted.local, AF_INET) && !is_inet(wanted.local, AF_INET6)) return EINVAL;
  if (wanted.local.port() == 0) return EINVAL;
  if (!can_be_served(wanted.local)) return EOPNOTSUPP;
  {
    const std::lock_guard lock(mutex_);
    if (by_id_.count(wanted.id) != 0) return EEXIST;
  }
  if (const int error = thread_.run([&] { return make_inside(wanted, made); }); error != 0) return error;
  const std::lock_guard lock(mutex_);
  by_id_.emplace(wanted.id, wanted);
  by_port_.emplace(wanted.local.port(), wanted.id);
  return 0;
}

void DatagramStash::forget(uint32_t id) {
  const std::lock_guard lock(mutex_);
  const auto found = by_id_.find(id);
  if (found == by_id_.end()) return;
  const auto [first, last] = by_port_.equal_range(found->second.local.port());
  for (auto i = first; i != last; ++i) {
    if (i->second != id) continue;
    by_port_.erase(i);
    break;
  }
  by_id_.erase(found);
}

// Which socket sends from this address: the one that is bound to it, or to all.
bool DatagramStash::find(const StashAddress& local, DatagramSocket* found) {
  const std::lock_guard lock(mutex_);
  const DatagramSocket* best = nullptr;
  const auto [first, last] = by_port_.equal_range(local.port());
  for (auto i = first; i != last; ++i) {
    const DatagramSocket& socket = by_id_.find(i->second)->second;
    const StashAddress bound = plain(socket.local);
    if (same_inet(bound, local)) {
      *found = socket;
      return true;
    }
    // [::] is for both, unless it is for IPv6 alone.
    const bool both = bound.family() == AF_INET6 && !socket.v6_only;
    if (is_wildcard(bound) && (bound.family() == local.family() || both)) {
      if (best == nullptr || plain(best->local).family() != local.family()) best = &socket;
    }
  }
  if (best != nullptr) *found = *best;
  return best != nullptr;
}

bool DatagramStash::receive(Datagram* datagram) {
  for (;;) {
    const ssize_t got = read(device_.get(), packet_.data(), packet_.size());
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return false;
    UdpPacket packet;
    if (!parse_udp_packet({packet_.data(), static_cast<size_t>(got)}, &packet)) continue;
    DatagramSocket socket;
    if (!is_one_host(packet.to) || !find(packet.from, &socket)) continue;
    datagram->socket = socket.id;
    datagram->remote = socket.local.family() == AF_INET6 ? mapped(packet.to) : packet.to;
    datagram->payload = packet.payload;
    return true;
  }
}

bool DatagramStash::send(const Datagram& datagram) {
  if (!is_inet(datagram.remote, AF_INET) && !is_inet(datagram.remote, AF_INET6)) return false;
  UdpPacket packet;
  packet.from = plain(datagram.remote);
  packet.payload = datagram.payload;
  {
    const std::lock_guard lock(mutex_);
    const auto found = by_id_.find(datagram.socket);
    if (found == by_id_.end()) return false;
    packet.to = plain(found->second.local);
    if (is_wildcard(packet.to)) {
      const in_port_t port = packet.to.port();
      packet.to =
          packet.from.family() == AF_INET ? inet_address(kOurFour, port) : inet_address(kOurSix, port);
    }
  }
  if (!is_one_host(packet.from) ||
      (packet.from.family() == AF_INET6 && IN6_IS_ADDR_LOOPBACK(&packet.from.six().sin6_addr))) {
    return false;
  }
  unsigned char headers[kMostUdpHeaderBytes];
  const size_t size = make_udp_headers(packet, headers);
  if (size == 0) return false;
  const iovec parts[] = {{headers, size}, {const_cast<char*>(packet.payload.data()), packet.payload.size()}};
  return writev(device_.get(), parts, 2) == static_cast<ssize_t>(size + packet.payload.size());
}

}  // namespace virt
