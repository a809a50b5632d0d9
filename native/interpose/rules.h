// Rules: what becomes of a call, by its kind, path, address, port and program. The first that matches decides. They come
// as bytes from a supervisor (src/rules/encode.ts) and are taken whole or not at all. No exceptions: used by virt-init.
#pragma once

#include <sys/socket.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "interpose/call.h"

namespace virt {

// Numbers are part of the protocol.
enum class Verdict : uint8_t {
  pass = 0,      // the kernel makes it, recorded or not as the pod's recording says
  deny = 1,      // it fails with `error`
  redirect = 2,  // it is made with another path, address or port
  ask = 3,       // a hook of a supervisor says; without an answer in time `fallback`
  record = 4,    // passed and recorded
  silent = 5,    // passed and not recorded
};

// An IP address, or a network: the first `prefix` bits count.
struct Network {
  std::string bytes;  // 4, 16, or none: every address
  uint8_t prefix = 0;
};

struct Rule {
  KindSet kinds = 0;
  std::string path;     // glob.h; empty: any
  std::string program;  // likewise
  Network network;
  uint16_t port_from = 0, port_to = 65535;
  int32_t socket_family = 0;  // of socket(2); 0: any
  Verdict verdict = Verdict::pass;
  int32_t error = 0;       // deny
  std::string to_path;     // redirect
  std::string to_address;  // redirect: 4 or 16 bytes; empty: the same
  int32_t to_port = -1;    // redirect; -1: the same
  uint32_t timeout_ms = 0;
  Verdict fallback = Verdict::pass;  // pass or deny
  int32_t fallback_error = 0;
};

class RuleSet {
 public:
  // False if they are no rules; then *rules is untouched. No bytes are no rules.
  static bool decode(std::string_view bytes, RuleSet* rules);

  [[nodiscard]] bool empty() const { return rules_.empty(); }
  // What the kernel has to ask about for these.
  [[nodiscard]] KindSet kinds() const;
  // Kinds for which a rule looks at the path: their paths have to be resolved first.
  [[nodiscard]] KindSet kinds_by_path() const { return by_path_; }
  // The first that matches, or null. `resolved` are the call's paths without symbolic links.
  [[nodiscard]] const Rule* match(const Call& call, const std::string& resolved,
                                  const std::string& resolved2) const;
  // The other way: an address that a redirected bind(2), or connect(2), has given a socket, as the program asked for it: by
  // the first rule that can have made it. False if none can.
  bool original(CallKind kind, sockaddr_storage* address) const;

 private:
  std::vector<Rule> rules_;
  KindSet by_path_ = 0;
};

// The address with what the rule puts in its place. False if it cannot be put there: another family.
bool redirect_address(const Rule& rule, sockaddr_storage* address, socklen_t* size);

}  // namespace virt
