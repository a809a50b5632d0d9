// relay/udp_packet: what a network device carries, and what is none of it.
#include "relay/udp_packet.h"

#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "test/inet_text.h"
#include "test/support.h"

using namespace virt;
using test::ip;
using test::show;

TEST_CASE("what is no whole datagram is none") {
  const auto packet = [](const char* from, const char* to) {
    UdpPacket p;
    p.from = ip(from, 1000);
    p.to = ip(to, 53);
    p.payload = "payload";
    unsigned char headers[kMostUdpHeaderBytes];
    const size_t size = make_udp_headers(p, headers);
    return std::string(reinterpret_cast<char*>(headers), size) + "payload";
  };
  const std::string v4 = packet("192.0.2.1", "8.8.8.8"), v6 = packet("2001:db8::1", "2001:db8::2");
  std::string payload;
  const auto good = [&](std::string bytes, size_t at, int value) {
    bytes.at(at) = static_cast<char>(value);
    UdpPacket parsed;
    if (!parse_udp_packet(bytes, &parsed)) return false;
    payload = parsed.payload;
    return true;
  };
  CHECK(good(v4, 0, 0x45));
  CHECK(!good(v4, 0, 0x44));  // a header too short
  CHECK(!good(v4, 0, 0x4f));  // too long
  CHECK(!good(v4, 0, 0x55));  // IP 5
  CHECK(!good(v4, 3, 36));    // longer than it is
  CHECK(!good(v4, 3, 27));    // no room for a UDP header
  CHECK(!good(v4, 6, 0x20));  // a fragment, and another
  CHECK(!good(v4, 7, 0x01));
  CHECK(!good(v4, 9, 6));  // TCP
  CHECK(good(v4, 25, 15));
  CHECK(!good(v4, 25, 16));  // a datagram longer than its packet
  CHECK(!good(v4, 25, 7));   // shorter than its header
  CHECK(good(v4, 25, 14));   // what follows it is no part of it
  CHECK(payload == "payloa");
  CHECK(good(v6, 0, 0x60));
  CHECK(!good(v6, 5, 16));  // longer than it is
  CHECK(!good(v6, 5, 7));
  CHECK(!good(v6, 6, 44));  // a fragment
  CHECK(!good(v6, 45, 16));
  for (const std::string& whole : {v4, v6}) {
    UdpPacket parsed;
    for (size_t size = 0; size < whole.size(); ++size) {
      CHECK(!parse_udp_packet(std::string_view(whole).substr(0, size), &parsed));
    }
  }
}

TEST_CASE("packets that are damaged are no datagrams, or ones within their bounds") {
  test::Random random(3);
  UdpPacket p;
  size_t whole = 0;
  for (int i = 0; i < 200'000; ++i) {
    const bool v4 = random.chance(2);
    const std::string payload(random.below(40), 'p');
    p.from = ip(v4 ? "192.0.2.1" : "2001:db8::1", 1000);
    p.to = ip(v4 ? "8.8.8.8" : "2001:db8::2", 53);
    p.payload = payload;
    unsigned char headers[kMostUdpHeaderBytes];
    const size_t size = make_udp_headers(p, headers);
    REQUIRE(size == (v4 ? 28 : 48));
    const std::string bytes = std::string(reinterpret_cast<char*>(headers), size) + payload;
    UdpPacket parsed;
    if (i % 100 == 0) {
      REQUIRE(parse_udp_packet(bytes, &parsed));
      CHECK(show(parsed.from) == show(p.from));
      CHECK(show(parsed.to) == show(p.to));
      CHECK(parsed.payload == payload);
    }
    // An own copy, so that a sanitizer sees whoever reads beyond it.
    const std::string hurt = test::damaged(bytes, random);
    const std::vector<char> exact(hurt.begin(), hurt.end());
    if (!parse_udp_packet({exact.data(), exact.size()}, &parsed)) continue;
    ++whole;
    unsigned sum = 0;
    for (const char c : parsed.payload) sum += static_cast<unsigned char>(c);
    if (parsed.payload.data() < exact.data() ||
        parsed.payload.data() + parsed.payload.size() > exact.data() + exact.size()) {
      FAIL("a payload outside its packet, ", sum);
    }
  }
  CHECK(whole > 1000);
  p.to = ip("8.8.8.8", 1);
  p.from = ip("2001:db8::1", 1);
  unsigned char headers[kMostUdpHeaderBytes];
  CHECK(make_udp_headers(p, headers) == 0);
}
