#include "relay/rtnetlink.h"

#include <linux/fib_rules.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/ip.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <poll.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

namespace virt {
namespace {

size_t address_bytes(int family) { return family == AF_INET ? 4 : 16; }

// Whether the news are that this very IPv6 address is reached here. (It has another route before, to the device.)
bool is_route_to(const void* address, const nlmsghdr* header, size_t size) {
  if (!NLMSG_OK(header, size) || header->nlmsg_type != RTM_NEWROUTE) return false;
  if (header->nlmsg_len < NLMSG_LENGTH(sizeof(rtmsg))) return false;
  if (static_cast<const rtmsg*>(NLMSG_DATA(header))->rtm_type != RTN_LOCAL) return false;
  auto rest = static_cast<int>(RTM_PAYLOAD(header));
  for (const rtattr* a = RTM_RTA(NLMSG_DATA(header)); RTA_OK(a, rest); a = RTA_NEXT(a, rest)) {
    if (a->rta_type == RTA_DST && RTA_PAYLOAD(a) == 16 && std::memcmp(RTA_DATA(a), address, 16) == 0)
      return true;
  }
  return false;
}

int wait_for_route(const UniqueFd& news, const void* address) {
  constexpr int kPatienceMs = 5000;
  for (;;) {
    pollfd p{news.get(), POLLIN, 0};
    const int got = poll(&p, 1, kPatienceMs);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return got == 0 ? ETIMEDOUT : errno;
    union {
      nlmsghdr header;
      char bytes[8192];
    } message;
    const ssize_t size = recv(news.get(), &message, sizeof message, 0);
    if (size > 0 && is_route_to(address, &message.header, static_cast<size_t>(size))) return 0;
  }
}

}  // namespace

// A request under construction. Ours are all short.
struct Rtnetlink::Message {
  static constexpr size_t kRoom = 512;
  union {
    nlmsghdr header;
    char bytes[kRoom];
  };

  template <typename Body>
  Message(uint16_t type, unsigned flags, const Body& body) : bytes{} {
    header.nlmsg_type = type;
    header.nlmsg_flags = static_cast<uint16_t>(NLM_F_REQUEST | NLM_F_ACK | flags);
    header.nlmsg_len = NLMSG_LENGTH(sizeof body);
    std::memcpy(NLMSG_DATA(&header), &body, sizeof body);
  }
  rtattr* add(uint16_t type, const void* data, size_t size) {
    auto* attribute = reinterpret_cast<rtattr*>(bytes + NLMSG_ALIGN(header.nlmsg_len));
    attribute->rta_type = type;
    attribute->rta_len = static_cast<uint16_t>(RTA_LENGTH(size));
    if (size > 0) std::memcpy(RTA_DATA(attribute), data, size);
    header.nlmsg_len = static_cast<uint32_t>(NLMSG_ALIGN(header.nlmsg_len) + RTA_SPACE(size));
    return attribute;
  }
  rtattr* add(uint16_t type, uint32_t value) { return add(type, &value, sizeof value); }
  // What is added between the two lies in it.
  rtattr* begin(uint16_t type) { return add(type, nullptr, 0); }
  void end(rtattr* nest) {
    nest->rta_len =
        static_cast<uint16_t>(bytes + NLMSG_ALIGN(header.nlmsg_len) - reinterpret_cast<char*>(nest));
  }
};

int Rtnetlink::open() {
  socket_.reset(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
  return socket_ ? 0 : errno;
}

int Rtnetlink::ask(Message& message) {
  const int error = ask_once(message);
  return error == EEXIST ? 0 : error;
}

int Rtnetlink::ask_once(Message& message) {
  message.header.nlmsg_seq = ++sequence_;
  if (send(socket_.get(), &message, message.header.nlmsg_len, 0) < 0) return errno;
  union {
    nlmsghdr header;
    char bytes[4096];
  } answer;
  for (;;) {
    const ssize_t got = recv(socket_.get(), &answer, sizeof answer, 0);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return errno;
    if (got < static_cast<ssize_t>(NLMSG_LENGTH(sizeof(nlmsgerr)))) return EPROTO;
    if (answer.header.nlmsg_type != NLMSG_ERROR || answer.header.nlmsg_seq != sequence_) continue;
    return -static_cast<const nlmsgerr*>(NLMSG_DATA(&answer.header))->error;
  }
}

int Rtnetlink::bring_up(int device, uint32_t mtu, bool from_anywhere) {
  ifinfomsg body{};
  body.ifi_index = device;
  body.ifi_flags = body.ifi_change = IFF_UP;
  Message message(RTM_NEWLINK, 0, body);
  if (mtu != 0) message.add(IFLA_MTU, mtu);
  if (from_anywhere) {
    rtattr* families = message.begin(IFLA_AF_SPEC);
    rtattr* family = message.begin(AF_INET);
    rtattr* settings = message.begin(IFLA_INET_CONF | NLA_F_NESTED);
    message.add(IPV4_DEVCONF_ROUTE_LOCALNET, 1);
    message.add(IPV4_DEVCONF_ACCEPT_LOCAL, 1);
    message.add(IPV4_DEVCONF_RP_FILTER, 0U);
    message.end(settings);
    message.end(family);
    message.end(families);
  }
  return ask(message);
}

int Rtnetlink::make_device(int number) {
  int error = EOPNOTSUPP;
  // Which of them a kernel has differs; any will do.
  for (const char* kind : {"dummy", "ifb", "bridge"}) {
    ifinfomsg body{};
    body.ifi_index = number;
    Message message(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body);
    char name[IFNAMSIZ];
    std::snprintf(name, sizeof name, "stash%d", number);
    message.add(IFLA_IFNAME, name, std::strlen(name) + 1);
    rtattr* info = message.begin(IFLA_LINKINFO);
    message.add(IFLA_INFO_KIND, kind, std::strlen(kind));
    message.end(info);
    error = ask(message);
    if (error != EOPNOTSUPP) return error;
  }
  return error;
}

int Rtnetlink::add_local_route(int family, const void* address, unsigned prefix, int device) {
  rtmsg body{};
  body.rtm_family = static_cast<unsigned char>(family);
  body.rtm_dst_len = static_cast<unsigned char>(prefix);
  body.rtm_table = RT_TABLE_LOCAL;
  body.rtm_protocol = RTPROT_STATIC;
  body.rtm_scope = RT_SCOPE_HOST;
  body.rtm_type = RTN_LOCAL;
  Message message(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, body);
  if (prefix != 0) message.add(RTA_DST, address, address_bytes(family));
  message.add(RTA_OIF, static_cast<uint32_t>(device));
  return ask(message);
}

int Rtnetlink::add_default_route(int family, int device, uint32_t table, const void* source) {
  rtmsg body{};
  body.rtm_family = static_cast<unsigned char>(family);
  body.rtm_protocol = RTPROT_STATIC;
  body.rtm_scope = RT_SCOPE_UNIVERSE;
  body.rtm_type = RTN_UNICAST;
  Message message(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, body);
  message.add(RTA_TABLE, table);
  message.add(RTA_OIF, static_cast<uint32_t>(device));
  message.add(RTA_PREFSRC, source, address_bytes(family));
  return ask(message);
}

int Rtnetlink::add_address(int family, const void* address, int device) {
  ifaddrmsg body{};
  body.ifa_family = static_cast<unsigned char>(family);
  body.ifa_prefixlen = family == AF_INET ? 32 : 128;
  // Nobody is asked whether he has it; it can be used at once.
  body.ifa_flags = IFA_F_PERMANENT | IFA_F_NODAD;
  body.ifa_index = static_cast<uint32_t>(device);
  Message message(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, body);
  message.add(IFA_LOCAL, address, address_bytes(family));
  message.add(IFA_ADDRESS, address, address_bytes(family));
  if (family == AF_INET) return ask(message);
  // Its route is put in by a work queue of the kernel (addrconf_dad_work), even without duplicate address detection.
  // Whoever sends before loses his packet, and TCP a second.
  const UniqueFd news(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
  sockaddr_nl routes{};
  routes.nl_family = AF_NETLINK;
  routes.nl_groups = RTMGRP_IPV6_ROUTE;
  if (!news || bind(news.get(), reinterpret_cast<const sockaddr*>(&routes), sizeof routes) != 0) return errno;
  const int error = ask_once(message);
  if (error == EEXIST) return 0;
  return error != 0 ? error : wait_for_route(news, address);
}

int Rtnetlink::add_rule(int family, uint32_t priority, const char* device, uint32_t table) {
  fib_rule_hdr body{};
  body.family = static_cast<unsigned char>(family);
  body.action = FR_ACT_TO_TBL;
  Message message(RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL, body);
  message.add(FRA_PRIORITY, priority);
  message.add(FRA_IIFNAME, device, std::strlen(device) + 1);
  message.add(FRA_TABLE, table);
  return ask(message);
}

int Rtnetlink::remove_local_rule(int family) {
  fib_rule_hdr body{};
  body.family = static_cast<unsigned char>(family);
  body.action = FR_ACT_TO_TBL;
  Message message(RTM_DELRULE, 0, body);
  message.add(FRA_TABLE, RT_TABLE_LOCAL);
  return ask(message);
}

}  // namespace virt
