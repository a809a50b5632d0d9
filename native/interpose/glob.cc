#include "interpose/glob.h"

namespace virt {
namespace {

// Where the set that begins at `at` ends, and whether it has the character. npos: it has no end, and is a "[" like any other.
size_t match_set(std::string_view pattern, size_t at, char c, bool* has) {
  size_t i = at + 1;
  const bool negated = i < pattern.size() && (pattern[i] == '!' || pattern[i] == '^');
  if (negated) ++i;
  bool found = false;
  for (bool first = true; i < pattern.size() && (first || pattern[i] != ']'); first = false, ++i) {
    if (i + 2 < pattern.size() && pattern[i + 1] == '-' && pattern[i + 2] != ']') {
      found = found || (pattern[i] <= c && c <= pattern[i + 2]);
      i += 2;
    } else {
      found = found || pattern[i] == c;
    }
  }
  if (i >= pattern.size()) return std::string_view::npos;
  *has = found != negated && c != '/';
  return i + 1;
}

}  // namespace

bool is_pattern(std::string_view text) { return text.find_first_of("*?[") != std::string_view::npos; }

// Remembers the last "*" and the last "**": a mismatch goes back to the nearer one, which takes one character more. So
// the time is bounded by the product of both lengths, whatever the pattern.
bool matches_pattern(std::string_view pattern, std::string_view path) {
  constexpr size_t kNone = std::string_view::npos;
  struct Star {
    size_t pattern = kNone, path = 0;
    bool parts = false;  // "**/": none or more whole parts
  } one, two;
  size_t p = 0, s = 0;
  for (;;) {
    if (p < pattern.size() && pattern[p] == '*') {
      if (p + 1 < pattern.size() && pattern[p + 1] == '*') {
        const bool parts =
            p + 2 < pattern.size() && pattern[p + 2] == '/' && (p == 0 || pattern[p - 1] == '/');
        p += parts ? 3 : 2;
        two = {p, s, parts};
        one = {};
      } else {
        one = {++p, s, false};
      }
      continue;
    }
    bool match = false;
    size_t next = p + 1;
    if (s == path.size()) {
      if (p == pattern.size()) return true;
      return false;  // more characters for a star do not make the path longer
    }
    if (p < pattern.size()) {
      if (pattern[p] == '?') {
        match = path[s] != '/';
      } else if (pattern[p] == '[') {
        const size_t end = match_set(pattern, p, path[s], &match);
        if (end == kNone)
          match = path[s] == '[';
        else
          next = end;
      } else {
        match = pattern[p] == path[s];
      }
    }
    if (match) {
      p = next;
      ++s;
    } else if (one.pattern != kNone && path[one.path] != '/') {
      s = ++one.path;
      p = one.pattern;
    } else if (two.pattern != kNone) {
      const size_t slash = two.parts ? path.find('/', two.path) : two.path;
      if (slash == kNone) return false;
      s = two.path = slash + 1;
      p = two.pattern;
      one = {};
    } else {
      return false;
    }
  }
}

bool matches_path(std::string_view wanted, std::string_view path) {
  if (is_pattern(wanted)) return matches_pattern(wanted, path);
  if (wanted == "/") return !path.empty() && path[0] == '/';
  return path.substr(0, wanted.size()) == wanted &&
         (path.size() == wanted.size() || path[wanted.size()] == '/');
}

}  // namespace virt
