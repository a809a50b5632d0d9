#include "sys/proc.h"

#include <sys/resource.h>

#include <algorithm>
#include <charconv>

#include "base/error.h"
#include "base/value.h"
#include "sys/file.h"

namespace virt {

std::string proc_path(pid_t pid, std::string_view rest) {
  return "/proc/" + std::to_string(pid) + "/" + std::string(rest);
}

std::optional<std::vector<std::pair<uint64_t, uint64_t>>> try_read_limits(const std::string& dir) {
  // "Max open files            1024                 4096                 files": fixed columns under a
  // heading.
  constexpr size_t kSoft = 26, kWidth = 21;
  const auto text = try_read_file(dir + "/limits", 1 << 16);
  if (!text) return std::nullopt;
  std::vector<std::pair<uint64_t, uint64_t>> limits;
  std::string_view rest(*text);
  for (bool heading = true; !rest.empty(); heading = false) {
    const std::string_view line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(rest.size(), line.size() + 1));
    if (heading) continue;
    const auto number = [&](size_t at) {
      const auto words = split_words(line.substr(std::min(at, line.size()), kWidth));
      if (words.size() == 1 && words[0] == "unlimited") return ~uint64_t{0};
      const auto n = words.size() == 1 ? parse_number(words[0]) : std::nullopt;
      if (!n) throw BadValue("unreadable " + dir + "/limits");
      return *n;
    };
    limits.emplace_back(number(kSoft), number(kSoft + kWidth));
  }
  if (limits.size() != RLIM_NLIMITS) throw BadValue("unreadable " + dir + "/limits");
  return limits;
}

std::vector<std::string_view> split_words(std::string_view text) {
  std::vector<std::string_view> words;
  size_t i = 0;
  while (true) {
    i = text.find_first_not_of(" \t\n", i);
    if (i == std::string_view::npos) return words;
    size_t end = text.find_first_of(" \t\n", i);
    if (end == std::string_view::npos) end = text.size();
    words.push_back(text.substr(i, end - i));
    i = end;
  }
}

std::optional<uint64_t> parse_number(std::string_view text, int base) {
  if (base == 16 && text.starts_with("0x")) text.remove_prefix(2);
  bool negative = false;
  if (base == 10 && text.starts_with("-")) {
    negative = true;
    text.remove_prefix(1);
  }
  uint64_t n = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), n, base);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return negative ? uint64_t{0} - n : n;
}

std::optional<ProcStat> try_read_stat(const std::string& dir) {
  const auto text = try_read_file(dir + "/stat", 1 << 16);
  if (!text) return std::nullopt;
  const size_t open = text->find('(');
  const size_t close = text->rfind(')');  // comm may hold parentheses
  if (open == std::string::npos || close == std::string::npos || close < open) {
    throw BadValue("unreadable " + dir + "/stat");
  }
  ProcStat s;
  s.comm = text->substr(open + 1, close - open - 1);
  const auto words = split_words(std::string_view(*text).substr(close + 1));
  if (words.size() < 50) throw BadValue("unreadable " + dir + "/stat");
  // words[0] is field 3 of proc(5).
  const auto field = [&](size_t number) {
    const auto n = parse_number(words[number - 3]);
    if (!n) throw BadValue("unreadable " + dir + "/stat");
    return *n;
  };
  s.state = words[0].empty() ? '?' : words[0][0];
  s.ppid = static_cast<int>(field(4));
  s.pgrp = static_cast<int>(field(5));
  s.session = static_cast<int>(field(6));
  s.tty_nr = static_cast<int>(field(7));
  s.threads = static_cast<int>(field(20));
  s.start_ticks = field(22);
  s.start_code = field(26);
  s.end_code = field(27);
  s.start_stack = field(28);
  s.exit_signal = static_cast<int>(parse_number(words[38 - 3]).value_or(0));  // -1 of a thread
  s.start_data = field(45);
  s.end_data = field(46);
  s.start_brk = field(47);
  s.arg_start = field(48);
  s.arg_end = field(49);
  s.env_start = field(50);
  s.env_end = field(51);
  s.exit_code = static_cast<int>(field(52));
  return s;
}

ProcFields::ProcFields(std::string_view text) : text_(std::make_shared<const std::string>(text)) {
  std::string_view rest = *text_;
  while (!rest.empty()) {
    size_t end = rest.find('\n');
    if (end == std::string_view::npos) end = rest.size();
    const std::string_view line = rest.substr(0, end);
    rest.remove_prefix(end == rest.size() ? end : end + 1);
    const size_t colon = line.find(':');
    if (colon == std::string_view::npos) continue;
    std::string_view value = line.substr(colon + 1);
    const size_t start = value.find_first_not_of(" \t");
    value = start == std::string_view::npos ? std::string_view() : value.substr(start);
    fields_.emplace_back(line.substr(0, colon), value);
  }
}

std::optional<std::string_view> ProcFields::find(std::string_view key) const {
  for (const auto& [name, value] : fields_) {
    if (name == key) return value;
  }
  return std::nullopt;
}

std::vector<std::string_view> ProcFields::all(std::string_view key) const {
  std::vector<std::string_view> values;
  for (const auto& [name, value] : fields_) {
    if (name == key) values.push_back(value);
  }
  return values;
}

std::optional<uint64_t> ProcFields::number(std::string_view key, int base) const {
  const auto value = find(key);
  if (!value) return std::nullopt;
  const auto words = split_words(*value);
  const auto n = words.empty() ? std::nullopt : parse_number(words[0], base);
  if (!n) throw BadValue("unreadable number in /proc after " + std::string(key));
  return n;
}

std::vector<uint64_t> ProcFields::numbers(std::string_view key, int base) const {
  std::vector<uint64_t> list;
  const auto value = find(key);
  if (!value) return list;
  for (const std::string_view word : split_words(*value)) {
    const auto n = parse_number(word, base);
    if (!n) throw BadValue("unreadable number in /proc after " + std::string(key));
    list.push_back(*n);
  }
  return list;
}

std::optional<ProcFields> try_read_status(const std::string& dir) {
  const auto text = try_read_file(dir + "/status", 1 << 20);
  if (!text) return std::nullopt;
  return ProcFields(*text);
}

}  // namespace virt
