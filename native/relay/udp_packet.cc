#include "relay/udp_packet.h"

#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <netinet/udp.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace virt {
namespace {

constexpr size_t kMostPacketBytes = 65535, kUdpBytes = sizeof(udphdr);

// The sum of RFC 1071, of bytes in network order.
class Checksum {
 public:
  // An odd number of bytes only in the last piece.
  void add(const void* data, size_t size) {
    const auto* bytes = static_cast<const unsigned char*>(data);
    for (; size > 1; size -= 2, bytes += 2) {
      uint16_t word;
      std::memcpy(&word, bytes, sizeof word);
      sum_ += ntohs(word);
    }
    if (size == 1) sum_ += uint64_t{*bytes} << 8;
  }
  void add_number(uint32_t number) { sum_ += number; }
  [[nodiscard]] uint16_t result() const {
    uint64_t sum = sum_;
    while (sum >> 16 != 0) sum = (sum & 0xffff) + (sum >> 16);
    return htons(static_cast<uint16_t>(~sum));
  }

 private:
  uint64_t sum_ = 0;
};

bool parse_udp(std::string_view rest, UdpPacket* packet, udphdr* udp) {
  if (rest.size() < kUdpBytes) return false;
  std::memcpy(udp, rest.data(), kUdpBytes);
  const size_t length = ntohs(udp->len);
  if (length < kUdpBytes || length > rest.size()) return false;
  packet->payload = rest.substr(kUdpBytes, length - kUdpBytes);
  return true;
}

bool parse_v4(std::string_view bytes, UdpPacket* packet) {
  iphdr ip;
  if (bytes.size() < sizeof ip) return false;
  std::memcpy(&ip, bytes.data(), sizeof ip);
  const size_t header = size_t{ip.ihl} * 4, length = ntohs(ip.tot_len);
  if (header < sizeof ip || length < header || length > bytes.size()) return false;
  // The "more fragments" bit and the offset.
  if (ip.protocol != IPPROTO_UDP || (ntohs(ip.frag_off) & 0x3fff) != 0) return false;
  udphdr udp;
  if (!parse_udp(bytes.substr(header, length - header), packet, &udp)) return false;
  packet->from = inet_address(in_addr{ip.saddr}, udp.source);
  packet->to = inet_address(in_addr{ip.daddr}, udp.dest);
  return true;
}

bool parse_v6(std::string_view bytes, UdpPacket* packet) {
  ip6_hdr ip;
  if (bytes.size() < sizeof ip) return false;
  std::memcpy(&ip, bytes.data(), sizeof ip);
  const size_t length = ntohs(ip.ip6_plen);
  if (ip.ip6_nxt != IPPROTO_UDP || length > bytes.size() - sizeof ip) return false;
  udphdr udp;
  if (!parse_udp(bytes.substr(sizeof ip, length), packet, &udp)) return false;
  packet->from = inet_address(ip.ip6_src, udp.source);
  packet->to = inet_address(ip.ip6_dst, udp.dest);
  return true;
}

udphdr make_udp(const UdpPacket& packet, Checksum sum) {
  udphdr udp{};
  udp.source = packet.from.port();
  udp.dest = packet.to.port();
  udp.len = htons(static_cast<uint16_t>(kUdpBytes + packet.payload.size()));
  sum.add_number(IPPROTO_UDP + static_cast<uint32_t>(kUdpBytes + packet.payload.size()));
  sum.add(&udp, sizeof udp);
  sum.add(packet.payload.data(), packet.payload.size());
  udp.check = sum.result();
  if (udp.check == 0) udp.check = 0xffff;  // 0 means that there is none
  return udp;
}

}  // namespace

bool parse_udp_packet(std::string_view bytes, UdpPacket* packet) {
  if (bytes.empty()) return false;
  const int version = static_cast<unsigned char>(bytes[0]) >> 4;
  return version == 4 ? parse_v4(bytes, packet) : version == 6 && parse_v6(bytes, packet);
}

size_t make_udp_headers(const UdpPacket& packet, unsigned char (&headers)[kMostUdpHeaderBytes]) {
  constexpr uint8_t kHops = 64;
  if (packet.from.family() != packet.to.family()) return 0;
  const bool v4 = packet.from.family() == AF_INET;
  const size_t header = v4 ? sizeof(iphdr) : sizeof(ip6_hdr);
  if (packet.payload.size() > kMostPacketBytes - header - kUdpBytes) return 0;
  const size_t length = kUdpBytes + packet.payload.size();
  Checksum addresses;
  if (v4) {
    iphdr ip{};
    ip.version = 4;
    ip.ihl = 5;
    ip.tot_len = htons(static_cast<uint16_t>(sizeof ip + length));
    ip.frag_off = htons(0x4000);  // it is whole, and stays so
    ip.ttl = kHops;
    ip.protocol = IPPROTO_UDP;
    ip.saddr = packet.from.four().sin_addr.s_addr;
    ip.daddr = packet.to.four().sin_addr.s_addr;
    Checksum sum;
    sum.add(&ip, sizeof ip);
    ip.check = sum.result();
    std::memcpy(headers, &ip, sizeof ip);
    addresses.add(headers + offsetof(iphdr, saddr), 2 * sizeof ip.saddr);
  } else {
    ip6_hdr ip{};
    ip.ip6_flow = htonl(6U << 28);
    ip.ip6_plen = htons(static_cast<uint16_t>(length));
    ip.ip6_nxt = IPPROTO_UDP;
    ip.ip6_hlim = kHops;
    ip.ip6_src = packet.from.six().sin6_addr;
    ip.ip6_dst = packet.to.six().sin6_addr;
    std::memcpy(headers, &ip, sizeof ip);
    addresses.add(headers + offsetof(ip6_hdr, ip6_src), 2 * sizeof ip.ip6_src);
  }
  const udphdr udp = make_udp(packet, addresses);
  std::memcpy(headers + header, &udp, sizeof udp);
  return header + sizeof udp;
}

}  // namespace virt
