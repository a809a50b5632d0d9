#include "resources/inet_address.h"

#include <cstdint>

namespace virt {

std::string show(const InetAddress& a) {
  char text[INET6_ADDRSTRLEN] = "?";
  if (a.storage.ss_family == AF_INET) {
    inet_ntop(AF_INET, &reinterpret_cast<const sockaddr_in&>(a.storage).sin_addr, text, sizeof text);
    return std::string(text) + ":" + std::to_string(a.port());
  }
  inet_ntop(AF_INET6, &reinterpret_cast<const sockaddr_in6&>(a.storage).sin6_addr, text, sizeof text);
  return "[" + std::string(text) + "]:" + std::to_string(a.port());
}

Value pack_inet(const InetAddress& a) {
  Value v = Value::map();
  char text[INET6_ADDRSTRLEN] = "";
  if (a.storage.ss_family == AF_INET) {
    inet_ntop(AF_INET, &reinterpret_cast<const sockaddr_in&>(a.storage).sin_addr, text, sizeof text);
  } else {
    const auto& in6 = reinterpret_cast<const sockaddr_in6&>(a.storage);
    inet_ntop(AF_INET6, &in6.sin6_addr, text, sizeof text);
    if (in6.sin6_scope_id != 0) v.set("scope", static_cast<int64_t>(in6.sin6_scope_id));
  }
  v.set("address", text).set("port", static_cast<int>(a.port()));
  return v;
}

InetAddress unpack_inet(const Value& v, int family) {
  InetAddress a;
  const std::string& text = v.at("address").as_string();
  const auto port = htons(static_cast<uint16_t>(v.at("port").as_int(0, 65535)));
  int ok;
  if (family == AF_INET) {
    auto& in = reinterpret_cast<sockaddr_in&>(a.storage);
    in.sin_family = AF_INET;
    in.sin_port = port;
    ok = inet_pton(AF_INET, text.c_str(), &in.sin_addr);
    a.size = sizeof in;
  } else {
    auto& in6 = reinterpret_cast<sockaddr_in6&>(a.storage);
    in6.sin6_family = AF_INET6;
    in6.sin6_port = port;
    in6.sin6_scope_id = static_cast<uint32_t>(v.get_int("scope", 0));
    ok = inet_pton(AF_INET6, text.c_str(), &in6.sin6_addr);
    a.size = sizeof in6;
  }
  if (ok != 1) throw BadValue("'" + text + "' is no address of this family");
  return a;
}

std::string packed_inet(const Value& value) {
  const bool six = value.at("address").as_string().find(':') != std::string::npos;
  return unpack_inet(value, six ? AF_INET6 : AF_INET).bytes();
}

}  // namespace virt
