// Internet addresses from text and to it, for tests.
#pragma once

#include <arpa/inet.h>
#include <doctest/doctest.h>

#include <string>

#include "relay/stash_address.h"

namespace virt::test {

inline StashAddress ip(const char* text, int port) {
  in_addr four;
  in6_addr six;
  const in_port_t p = htons(static_cast<uint16_t>(port));
  if (inet_pton(AF_INET, text, &four) == 1) return inet_address(four, p);
  REQUIRE(inet_pton(AF_INET6, text, &six) == 1);
  return inet_address(six, p);
}

inline std::string show(const StashAddress& a) {
  char text[INET6_ADDRSTRLEN] = "?";
  if (a.family() == AF_INET) inet_ntop(AF_INET, &a.four().sin_addr, text, sizeof text);
  if (a.family() == AF_INET6) inet_ntop(AF_INET6, &a.six().sin6_addr, text, sizeof text);
  return std::string(text) + " " + std::to_string(ntohs(a.port()));
}

}  // namespace virt::test
