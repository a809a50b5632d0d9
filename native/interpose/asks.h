// Calls that wait for the word of a hook, each with the time until which it waits and what becomes of it then. Any thread.
// No exceptions: used by virt-init.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "interpose/call.h"
#include "interpose/rules.h"

namespace virt {

struct Ask {
  Call call;
  Rule rule;  // its verdict is what is to be done, once it is known
  int64_t deadline_ns = 0;
};

class Asks {
 public:
  // What the hook is told (src/control/hooks.ts reads it).
  void add(Call call, const Rule& rule);
  // What hooks have not been told yet.
  std::vector<std::string> take_news();
  // The call of that number, if it still waits.
  bool take(uint64_t id, Ask* ask);
  // Those whose time is over at `now_ns`, or all; their verdict is the rule's fallback.
  std::vector<Ask> take_due(int64_t now_ns);
  std::vector<Ask> take_all();
  // CLOCK_MONOTONIC; INT64_MAX: nothing waits.
  int64_t next_deadline_ns();

 private:
  std::mutex mutex_;
  std::map<uint64_t, Ask> waiting_;
  std::vector<std::string> news_;
};

// What a hook may say, beside the verdicts of rules.
enum class HookVerdict : uint8_t { pass = 0, deny = 1, redirect = 2, answer = 6, inject = 7 };

struct HookAnswer {
  uint64_t id = 0;
  HookVerdict verdict = HookVerdict::pass;
  int64_t value = 0;  // of deny the errno
  std::string to_path, to_address;
  int32_t to_port = -1;
  static bool decode(std::string_view bytes, HookAnswer* answer);
};

}  // namespace virt
