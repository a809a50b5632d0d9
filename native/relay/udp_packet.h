// UDP datagrams as they look on a network device: IP packets (RFC 791, RFC 8200, RFC 768). No exceptions: used by virt-init.
#pragma once

#include <cstddef>
#include <string_view>

#include "relay/stash_address.h"

namespace virt {

struct UdpPacket {
  StashAddress from, to;
  std::string_view payload;
};

// What is no whole UDP datagram gives false: fragments, extension headers, lengths that do not fit. Checksums are not
// looked at. `packet->payload` lies in `bytes`.
bool parse_udp_packet(std::string_view bytes, UdpPacket* packet);

inline constexpr size_t kMostUdpHeaderBytes = 48;

// Writes the headers of a packet, checksums included. How many bytes, or 0: the addresses are of different families, or
// the payload is too long (65507 bytes for IPv4, 65487 for IPv6).
size_t make_udp_headers(const UdpPacket& packet, unsigned char (&headers)[kMostUdpHeaderBytes]);

}  // namespace virt
