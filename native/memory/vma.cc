#include "memory/vma.h"

#include <sys/mman.h>

#include <algorithm>

#include "base/value.h"
#include "sys/proc.h"

namespace virt {
namespace {

[[noreturn]] void unreadable(std::string_view line) {
  throw BadValue("unreadable line in /proc/PID/smaps: " + std::string(line.substr(0, 200)));
}

// Takes the text up to `until` off the front.
std::string_view take(std::string_view* rest, char until) {
  const size_t end = rest->find(until);
  if (end == std::string_view::npos) unreadable(*rest);
  const std::string_view word = rest->substr(0, end);
  rest->remove_prefix(end + 1);
  return word;
}

uint64_t number(std::string_view word, int base, std::string_view line) {
  const auto n = parse_number(word, base);
  if (!n) unreadable(line);
  return *n;
}

// "55d0c0000-55d0c1000 r--p 00000000 fe:00 1234      /usr/bin/x"
bool parse_header(std::string_view line, Vma* vma) {
  std::string_view rest = line;
  const size_t dash = rest.find('-'), space = rest.find(' ');
  if (dash == std::string_view::npos || space == std::string_view::npos || dash > space) return false;
  const auto start = parse_number(rest.substr(0, dash), 16);
  if (!start) return false;
  vma->start = *start;
  vma->end = number(rest.substr(dash + 1, space - dash - 1), 16, line);
  rest.remove_prefix(space + 1);
  const std::string_view mode = take(&rest, ' ');
  if (mode.size() != 4) unreadable(line);
  vma->protection =
      (mode[0] == 'r' ? PROT_READ : 0) | (mode[1] == 'w' ? PROT_WRITE : 0) | (mode[2] == 'x' ? PROT_EXEC : 0);
  vma->shared = mode[3] == 's';
  vma->offset = number(take(&rest, ' '), 16, line);
  vma->major = static_cast<unsigned>(number(take(&rest, ':'), 16, line));
  vma->minor = static_cast<unsigned>(number(take(&rest, ' '), 16, line));
  const size_t end = rest.find(' ');
  vma->inode = number(rest.substr(0, end), 10, line);
  const size_t path = end == std::string_view::npos ? end : rest.find_first_not_of(' ', end);
  if (path != std::string_view::npos) vma->path = unescape_path(rest.substr(path));
  return true;
}

}  // namespace

bool Vma::has(std::string_view flag) const {
  return std::find(flags.begin(), flags.end(), flag) != flags.end();
}

std::string unescape_path(std::string_view path) {
  std::string out;
  for (size_t i = 0; i < path.size(); ++i) {
    if (path.substr(i, 4) == "\\012") {
      out += '\n';
      i += 3;
    } else {
      out += path[i];
    }
  }
  return out;
}

std::vector<Vma> parse_smaps(std::string_view text) {
  std::vector<Vma> list;
  while (!text.empty()) {
    size_t end = text.find('\n');
    if (end == std::string_view::npos) end = text.size();
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(text.size(), end + 1));
    if (line.empty()) continue;
    // Attribute lines begin with a capital letter, mappings with a hex digit in lower case.
    if (line[0] < 'A' || line[0] > 'Z') {
      Vma vma;
      if (!parse_header(line, &vma)) unreadable(line);
      if (vma.end <= vma.start || (!list.empty() && vma.start < list.back().end)) unreadable(line);
      list.push_back(std::move(vma));
      continue;
    }
    if (list.empty()) unreadable(line);
    const auto words = split_words(line);
    if (words.size() < 2) continue;
    if (words[0] == "Swap:") list.back().swap_bytes = number(words[1], 10, line) * 1024;
    if (words[0] == "AnonHugePages:" || words[0] == "ShmemPmdMapped:") {
      list.back().huge_bytes += number(words[1], 10, line) * 1024;
    }
    if (words[0] == "ProtectionKey:")
      list.back().protection_key = static_cast<unsigned>(number(words[1], 10, line));
    if (words[0] == "VmFlags:") {
      for (size_t i = 1; i < words.size(); ++i) list.back().flags.emplace_back(words[i]);
    }
  }
  return list;
}

}  // namespace virt
