// interpose/rules: what is no rule is refused whole, the first that matches decides, and the way back is found.
#include "interpose/rules.h"

#include <arpa/inet.h>
#include <doctest/doctest.h>
#include <netinet/in.h>
#include <sys/syscall.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "sys/wire.h"

using namespace virt;

namespace {

std::string bytes_of(const std::vector<Rule>& rules) {
  wire::Writer w;
  w.number(static_cast<uint32_t>(rules.size()));
  for (const Rule& r : rules) {
    w.number(r.kinds);
    w.text(r.path);
    w.text(r.program);
    w.text(r.network.bytes);
    w.number(r.network.prefix);
    w.number(r.port_from);
    w.number(r.port_to);
    w.number(r.socket_family);
    w.number(r.verdict);
    w.number(r.error);
    w.text(r.to_path);
    w.text(r.to_address);
    w.number(r.to_port);
    w.number(r.timeout_ms);
    w.number(r.fallback);
    w.number(r.fallback_error);
  }
  return w.bytes();
}

Rule rule(CallKind kind) {
  Rule r;
  r.kinds = kind_bit(kind);
  return r;
}

RuleSet set_of(const std::vector<Rule>& rules) {
  RuleSet set;
  REQUIRE(RuleSet::decode(bytes_of(rules), &set));
  return set;
}

std::string ip(const char* text) {
  char bytes[16];
  const bool four = inet_pton(AF_INET, text, bytes) == 1;
  REQUIRE((four || inet_pton(AF_INET6, text, bytes) == 1));
  return {bytes, four ? size_t{4} : size_t{16}};
}

sockaddr_storage at(const char* text, int port) {
  sockaddr_storage a{};
  const std::string bytes = ip(text);
  if (bytes.size() == 4) {
    auto& in = reinterpret_cast<sockaddr_in&>(a);
    in.sin_family = AF_INET;
    in.sin_port = htons(static_cast<uint16_t>(port));
    std::memcpy(&in.sin_addr, bytes.data(), 4);
  } else {
    auto& in6 = reinterpret_cast<sockaddr_in6&>(a);
    in6.sin6_family = AF_INET6;
    in6.sin6_port = htons(static_cast<uint16_t>(port));
    std::memcpy(&in6.sin6_addr, bytes.data(), 16);
  }
  return a;
}

Call call_to(const char* address, int port) {
  Call c;
  c.entry = interposed_call(SYS_connect);
  c.kind = CallKind::connect;
  auto who = std::make_shared<Caller>();
  who->program = "/usr/bin/curl";
  c.who = std::move(who);
  c.address = at(address, port);
  c.address_size = sizeof(sockaddr_in6);
  return c;
}

bool same(const sockaddr_storage& a, const sockaddr_storage& b) {
  return std::memcmp(&a, &b, sizeof(sockaddr_in6)) == 0;
}

}  // namespace

TEST_CASE("networks, ports and programs") {
  Rule deny = rule(CallKind::connect);
  deny.network = {ip("10.1.0.0"), 12};
  deny.port_from = 80;
  deny.port_to = 90;
  deny.verdict = Verdict::deny;
  deny.error = EACCES;
  Rule except = deny;
  except.program = "/usr/bin/c*";
  except.network = {ip("10.2.0.0"), 16};
  except.verdict = Verdict::pass;
  const RuleSet set = set_of({except, deny});
  const auto verdict = [&](const char* address, int port) {
    const Rule* r = set.match(call_to(address, port), {}, {});
    return r == nullptr ? -1 : static_cast<int>(r->verdict);
  };
  CHECK(verdict("10.0.255.1", 80) == 1);
  CHECK(verdict("10.15.255.255", 90) == 1);
  CHECK(verdict("10.16.0.0", 80) == -1);
  CHECK(verdict("10.1.1.1", 79) == -1);
  CHECK(verdict("10.2.1.1", 80) == 0);
  CHECK(verdict("::ffff:10.1.1.1", 80) == 1);
  CHECK(verdict("fd00::1", 80) == -1);
}

TEST_CASE("there and back") {
  Rule both = rule(CallKind::bind);
  both.network = {ip("10.0.0.5"), 32};
  both.port_from = both.port_to = 8080;
  both.verdict = Verdict::redirect;
  both.to_address = ip("127.0.0.1");
  both.to_port = 9090;
  Rule port = rule(CallKind::bind);
  port.port_from = port.port_to = 8080;
  port.verdict = Verdict::redirect;
  port.to_port = 9090;
  const RuleSet set = set_of({both, port});
  sockaddr_storage a = at("10.0.0.5", 8080);
  socklen_t size = sizeof(sockaddr_in);
  REQUIRE(redirect_address(both, &a, &size));
  CHECK(same(a, at("127.0.0.1", 9090)));
  REQUIRE(set.original(CallKind::bind, &a));
  CHECK(same(a, at("10.0.0.5", 8080)));
  a = at("::", 9090);
  REQUIRE(set.original(CallKind::bind, &a));
  CHECK(same(a, at("::", 8080)));
  a = at("0.0.0.0", 9091);
  CHECK_FALSE(set.original(CallKind::bind, &a));
  // IPv4 into IPv6's clothes, but never IPv6 into IPv4's.
  a = at("::ffff:10.0.0.5", 8080);
  REQUIRE(redirect_address(both, &a, &size));
  CHECK(same(a, at("::ffff:127.0.0.1", 9090)));
  both.to_address = ip("::1");
  a = at("10.0.0.5", 8080);
  CHECK_FALSE(redirect_address(both, &a, &size));
}

TEST_CASE("what names need is asked about") {
  Rule r = rule(CallKind::bind);
  r.verdict = Verdict::redirect;
  r.to_port = 1;
  CHECK((set_of({r}).kinds() & kind_bit(CallKind::name)) != 0);
  CHECK((set_of({rule(CallKind::open)}).kinds() & kind_bit(CallKind::name)) == 0);
  CHECK(set_of({}).kinds() == 0);
}

TEST_CASE("what is no rule is refused, and nothing of it is taken") {
  const auto refused = [](const Rule& r) {
    RuleSet set = set_of({rule(CallKind::open), rule(CallKind::kill)});
    const bool taken = RuleSet::decode(bytes_of({rule(CallKind::open), r}), &set);
    return !taken && set.kinds() == (kind_bit(CallKind::open) | kind_bit(CallKind::kill));
  };
  CHECK_FALSE(refused(rule(CallKind::open)));
  Rule r;
  CHECK(refused(r));  // no kind
  r.kinds = 1U << 31;
  CHECK(refused(r));
  r = rule(CallKind::open);
  r.verdict = static_cast<Verdict>(9);
  CHECK(refused(r));
  r = rule(CallKind::open);
  r.verdict = Verdict::deny;
  CHECK(refused(r));  // error 0
  r.error = 5000;
  CHECK(refused(r));
  r = rule(CallKind::open);
  r.to_path = "relative";
  CHECK(refused(r));
  r = rule(CallKind::connect);
  r.network = {std::string(5, 'x'), 3};
  CHECK(refused(r));
  r.network = {ip("10.0.0.0"), 33};
  CHECK(refused(r));
  r = rule(CallKind::connect);
  r.to_port = 65536;
  CHECK(refused(r));
  r = rule(CallKind::connect);
  r.port_from = 9;
  r.port_to = 8;
  CHECK(refused(r));
  r = rule(CallKind::open);
  r.path = std::string(5000, '/');
  CHECK(refused(r));
}

TEST_CASE("bytes of any kind end in yes or no") {
  const std::string good = bytes_of({rule(CallKind::open), rule(CallKind::connect)});
  RuleSet set;
  for (size_t n = 1; n < good.size(); ++n) CHECK_FALSE(RuleSet::decode(good.substr(0, n), &set));
  CHECK_FALSE(RuleSet::decode(good + "x", &set));
  std::mt19937 random(7);
  for (int i = 0; i < 20'000; ++i) {
    std::string bytes = good;
    for (int n = 0; n < 3; ++n) bytes[random() % bytes.size()] = static_cast<char>(random());
    RuleSet::decode(bytes, &set);
  }
}
