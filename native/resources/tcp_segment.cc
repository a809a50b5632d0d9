#include "resources/tcp_segment.h"

#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <string>

#include "base/error.h"
#include "sys/fd.h"
#include "sys/tcp_silence.h"

namespace virt {
namespace {

constexpr const char* kTelling = "telling a TCP connection that its peer has ended it";

template <typename T>
std::string raw(const T& value) {
  return {reinterpret_cast<const char*>(&value), sizeof value};
}

// RFC 1071, of whole 16 bit words.
uint16_t checksum(const std::string& words) {
  uint32_t sum = 0;
  for (size_t i = 0; i + 1 < words.size(); i += 2) {
    uint16_t word;
    std::memcpy(&word, words.data() + i, sizeof word);
    sum += word;
  }
  while (sum > UINT16_MAX) sum = (sum & UINT16_MAX) + (sum >> 16);
  return static_cast<uint16_t>(~sum);
}

const sockaddr_in& four(const InetAddress& a) { return reinterpret_cast<const sockaddr_in&>(a.storage); }
const sockaddr_in6& six(const InetAddress& a) { return reinterpret_cast<const sockaddr_in6&>(a.storage); }

bool is_six(const InetAddress& a) {
  return a.storage.ss_family == AF_INET6 && !IN6_IS_ADDR_V4MAPPED(&six(a).sin6_addr);
}

in_addr four_of(const InetAddress& a) {
  if (a.storage.ss_family == AF_INET) return four(a).sin_addr;
  in_addr mapped{};
  std::memcpy(&mapped, &six(a).sin6_addr.s6_addr[12], sizeof mapped);
  return mapped;
}

}  // namespace

void inject_end(const Segment& s, int fd) {
  constexpr int kPatienceMs = 5000;
  const bool v6 = is_six(s.to);
  tcphdr tcp{};
  tcp.source = htons(s.from.port());
  tcp.dest = htons(s.to.port());
  tcp.seq = htonl(s.sequence);
  tcp.ack_seq = htonl(s.acknowledged);
  tcp.doff = sizeof tcp / 4;
  tcp.fin = tcp.ack = 1;
  tcp.window = htons(s.window);
  const std::string addresses =
      v6 ? raw(six(s.from).sin6_addr) + raw(six(s.to).sin6_addr) : raw(four_of(s.from)) + raw(four_of(s.to));
  // The pseudo header's protocol and length are 16 bits each, or 32 with zeros before them: the same sum.
  tcp.check = checksum(addresses + raw(htons(IPPROTO_TCP)) + raw(htons(sizeof tcp)) + raw(tcp));
  std::string packet;
  sockaddr_storage to{};
  if (v6) {
    ip6_hdr ip{};
    ip.ip6_vfc = 6 << 4;
    ip.ip6_plen = htons(sizeof tcp);
    ip.ip6_nxt = IPPROTO_TCP;
    ip.ip6_hlim = IPDEFTTL;
    ip.ip6_src = six(s.from).sin6_addr;
    ip.ip6_dst = six(s.to).sin6_addr;
    packet = raw(ip);
    auto& where = reinterpret_cast<sockaddr_in6&>(to);
    where = six(s.to);
    where.sin6_port = 0;
  } else {
    iphdr ip{};
    ip.version = 4;
    ip.ihl = sizeof ip / 4;
    ip.ttl = IPDEFTTL;
    ip.protocol = IPPROTO_TCP;
    ip.saddr = four_of(s.from).s_addr;
    ip.daddr = four_of(s.to).s_addr;
    packet = raw(ip);  // the kernel adds length and checksum (raw(7))
    auto& where = reinterpret_cast<sockaddr_in&>(to);
    where.sin_family = AF_INET;
    where.sin_addr = four_of(s.to);
  }
  packet += raw(tcp);
  const UniqueFd out(socket(v6 ? AF_INET6 : AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW));
  if (!out) throw OsError("socket", errno, kTelling);
  const uint32_t mark = kSilenceMark;
  check(setsockopt(out.get(), SOL_SOCKET, SO_MARK, &mark, sizeof mark), "setsockopt", kTelling);
  const socklen_t size = v6 ? sizeof(sockaddr_in6) : sizeof(sockaddr_in);
  if (sendto(out.get(), packet.data(), packet.size(), 0, reinterpret_cast<const sockaddr*>(&to), size) < 0)
    throw OsError("sendto", errno, kTelling);
  pollfd ended{fd, POLLRDHUP, 0};
  const int n = poll(&ended, 1, kPatienceMs);
  if (n <= 0) throw OsError("poll", n < 0 ? errno : ETIMEDOUT, kTelling);
}

}  // namespace virt
