#include "interpose/rules.h"

#include <netinet/in.h>
#include <sys/un.h>

#include <algorithm>
#include <cstddef>
#include <cstring>

#include "interpose/glob.h"
#include "sys/wire.h"

namespace virt {
namespace {

constexpr size_t kMostRules = 4096, kMostText = 4096;
constexpr int kMostErrno = 4095;
constexpr std::string_view kMapped("\0\0\0\0\0\0\0\0\0\0\xff\xff", 12);  // ::ffff:a.b.c.d

// 4 or 16 bytes; an IPv4 address in IPv6's clothes is an IPv4 address. Empty for other families.
std::string bytes_of(const sockaddr_storage& a) {
  if (a.ss_family == AF_INET) {
    const auto& in = reinterpret_cast<const sockaddr_in&>(a);
    return {reinterpret_cast<const char*>(&in.sin_addr), sizeof in.sin_addr};
  }
  if (a.ss_family != AF_INET6) return {};
  const auto& in6 = reinterpret_cast<const sockaddr_in6&>(a);
  const std::string bytes(reinterpret_cast<const char*>(&in6.sin6_addr), sizeof in6.sin6_addr);
  return bytes.starts_with(kMapped) ? bytes.substr(kMapped.size()) : bytes;
}

bool put_bytes(const std::string& bytes, sockaddr_storage* a) {
  if (a->ss_family == AF_INET && bytes.size() == sizeof(in_addr)) {
    std::memcpy(&reinterpret_cast<sockaddr_in*>(a)->sin_addr, bytes.data(), bytes.size());
    return true;
  }
  if (a->ss_family != AF_INET6) return false;
  const std::string whole = bytes.size() == sizeof(in_addr) ? std::string(kMapped) + bytes : bytes;
  std::memcpy(&reinterpret_cast<sockaddr_in6*>(a)->sin6_addr, whole.data(), whole.size());
  return true;
}

void put_port(int port, sockaddr_storage* a) {
  if (a->ss_family == AF_INET)
    reinterpret_cast<sockaddr_in*>(a)->sin_port = htons(static_cast<uint16_t>(port));
  if (a->ss_family == AF_INET6)
    reinterpret_cast<sockaddr_in6*>(a)->sin6_port = htons(static_cast<uint16_t>(port));
}

bool contains(const Network& network, const std::string& address) {
  if (network.bytes.empty()) return true;
  if (network.bytes.size() != address.size()) return false;
  const size_t whole = network.prefix / 8;
  if (network.bytes.compare(0, whole, address, 0, whole) != 0) return false;
  const unsigned rest = network.prefix % 8;
  if (rest == 0) return true;
  const auto difference = static_cast<unsigned char>(network.bytes[whole] ^ address[whole]);
  return difference >> (8 - rest) == 0;
}

bool is_one(const Network& network) { return network.prefix == network.bytes.size() * 8; }

bool is_sane(const Rule& r) {
  const auto address = [](const std::string& bytes) {
    return bytes.empty() || bytes.size() == sizeof(in_addr) || bytes.size() == sizeof(in6_addr);
  };
  const auto error = [](int e) { return e > 0 && e <= kMostErrno; };
  if (r.kinds == 0 || (r.kinds & ~kAllKinds) != 0 || r.port_from > r.port_to) return false;
  if (!address(r.network.bytes) || r.network.prefix > r.network.bytes.size() * 8) return false;
  if (!address(r.to_address) || r.to_port < -1 || r.to_port > 65535) return false;
  if (!r.to_path.empty() && r.to_path[0] != '/' && r.to_path[0] != '@') return false;
  if (r.verdict > Verdict::silent || (r.verdict == Verdict::deny && !error(r.error))) return false;
  if (r.fallback > Verdict::deny || (r.fallback == Verdict::deny && !error(r.fallback_error))) return false;
  return r.path.size() <= kMostText && r.program.size() <= kMostText && r.to_path.size() <= kMostText;
}

}  // namespace

bool RuleSet::decode(std::string_view bytes, RuleSet* rules) {
  if (bytes.empty()) {
    *rules = {};
    return true;
  }
  wire::Reader in(bytes);
  const auto count = in.number<uint32_t>();
  if (count > kMostRules) return false;
  RuleSet out;
  for (uint32_t i = 0; i < count && in.ok(); ++i) {
    Rule r;
    r.kinds = in.number<uint32_t>();
    r.path = in.text();
    r.program = in.text();
    r.network.bytes = in.text();
    r.network.prefix = in.number<uint8_t>();
    r.port_from = in.number<uint16_t>();
    r.port_to = in.number<uint16_t>();
    r.socket_family = in.number<int32_t>();
    r.verdict = in.number<Verdict>();
    r.error = in.number<int32_t>();
    r.to_path = in.text();
    r.to_address = in.text();
    r.to_port = in.number<int32_t>();
    r.timeout_ms = in.number<uint32_t>();
    r.fallback = in.number<Verdict>();
    r.fallback_error = in.number<int32_t>();
    if (!in.ok() || !is_sane(r)) return false;
    if (!r.path.empty()) out.by_path_ |= r.kinds;
    out.rules_.push_back(std::move(r));
  }
  if (!in.done()) return false;
  *rules = std::move(out);
  return true;
}

KindSet RuleSet::kinds() const {
  KindSet kinds = 0;
  bool translates = false;
  for (const Rule& r : rules_) {
    kinds |= r.kinds;
    translates =
        translates || (r.verdict == Verdict::redirect && r.to_path.empty()) || r.verdict == Verdict::ask;
  }
  // What the program is told of its sockets' names is what it asked for.
  constexpr KindSet kNamed = kind_bit(CallKind::bind) | kind_bit(CallKind::connect);
  if (translates && (kinds & kNamed) != 0) kinds |= kind_bit(CallKind::name);
  return kinds;
}

const Rule* RuleSet::match(const Call& call, const std::string& resolved,
                           const std::string& resolved2) const {
  const KindSet kind = kind_bit(call.kind);
  const std::string address = bytes_of(call.address);
  const int port = port_of(call.address);
  const auto fits = [&](const Rule& r) {
    if ((r.kinds & kind) == 0) return false;
    if (!r.path.empty() && !matches_path(r.path, resolved) &&
        (resolved2.empty() || !matches_path(r.path, resolved2)))
      return false;
    if (!r.program.empty() && !matches_path(r.program, call.who->program)) return false;
    const bool any_port = r.port_from == 0 && r.port_to == 65535;
    if (!r.network.bytes.empty() && !contains(r.network, address)) return false;
    if (!any_port && (port < r.port_from || port > r.port_to)) return false;
    // A rule that gives an address or a port another one has nothing to say of unix sockets.
    if (r.verdict == Verdict::redirect && r.to_path.empty() && address.empty()) return false;
    const uint64_t family = call.argument(call.entry->value);
    return call.kind != CallKind::socket || r.socket_family == 0 ||
           static_cast<uint64_t>(r.socket_family) == family;
  };
  const auto found = std::find_if(rules_.begin(), rules_.end(), fits);
  return found == rules_.end() ? nullptr : &*found;
}

bool RuleSet::original(CallKind kind, sockaddr_storage* a) const {
  const std::string address = bytes_of(*a);
  const int port = port_of(*a);
  if (address.empty() || port <= 0) return false;
  for (const Rule& r : rules_) {
    if ((r.kinds & kind_bit(kind)) == 0 || r.verdict != Verdict::redirect || !r.to_path.empty()) continue;
    if (r.to_port >= 0 ? r.to_port != port : port < r.port_from || port > r.port_to) continue;
    if (r.to_address.empty() ? !contains(r.network, address) : r.to_address != address) continue;
    // Which of several it was nobody knows any more.
    if (r.to_port >= 0 && r.port_from != r.port_to) continue;
    if (!r.to_address.empty() && !is_one(r.network)) continue;
    if (!r.to_address.empty() && !put_bytes(r.network.bytes, a)) return false;
    if (r.to_port >= 0) put_port(r.port_from, a);
    return true;
  }
  return false;
}

bool redirect_address(const Rule& rule, sockaddr_storage* address, socklen_t* size) {
  if (!rule.to_path.empty()) {
    if (address->ss_family != AF_UNIX) return false;
    auto* un = reinterpret_cast<sockaddr_un*>(address);
    const bool abstract = rule.to_path[0] == '@';
    if (rule.to_path.size() >= sizeof un->sun_path) return false;
    std::memset(un->sun_path, 0, sizeof un->sun_path);
    std::memcpy(un->sun_path, rule.to_path.data(), rule.to_path.size());
    if (abstract) un->sun_path[0] = '\0';
    *size =
        static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + rule.to_path.size() + (abstract ? 0 : 1));
    return true;
  }
  if (!rule.to_address.empty() && !put_bytes(rule.to_address, address)) return false;
  if (rule.to_port >= 0) put_port(rule.to_port, address);
  return true;
}

}  // namespace virt
