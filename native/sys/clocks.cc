#include "sys/clocks.h"

#include "base/value.h"
#include "sys/file.h"
#include "sys/proc.h"

namespace virt {
namespace {

constexpr int64_t kSecond = 1'000'000'000;

// "monotonic           -3  500000000"
int64_t offset_in(const std::string& path, Clock clock) {
  const auto text = try_read_file(path, 4096);
  if (!text) return 0;  // a kernel without time namespaces
  const std::string_view name = clock == Clock::monotonic ? "monotonic" : "boottime";
  size_t at = 0;
  while (at < text->size()) {
    size_t end = text->find('\n', at);
    if (end == std::string::npos) end = text->size();
    const auto words = split_words(std::string_view(*text).substr(at, end - at));
    at = end + 1;
    if (words.size() != 3 || words[0] != name) continue;
    const auto seconds = parse_number(words[1]), rest = parse_number(words[2]);
    if (!seconds || !rest) throw BadValue("unreadable timens_offsets");
    return static_cast<int64_t>(*seconds) * kSecond + static_cast<int64_t>(*rest);
  }
  return 0;
}

}  // namespace

int64_t host_clock_ns(Clock clock) {
  const int64_t now = clock_ns(clock == Clock::monotonic ? CLOCK_MONOTONIC : CLOCK_BOOTTIME);
  return now - offset_in("/proc/self/timens_offsets", clock);
}

int64_t clock_offset_ns(pid_t host_pid, Clock clock) {
  return offset_in(proc_path(host_pid, "timens_offsets"), clock);
}

}  // namespace virt
