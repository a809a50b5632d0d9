// Patterns for paths: "*" and "?" stay within a part, "**" goes across parts, "[a-z]" and "[!a]" are sets of characters
// (glob(7)). No exceptions: used by virt-init.
#pragma once

#include <string_view>

namespace virt {

// Whether there is anything special in it; if not it is a path, and means that path and all below it.
bool is_pattern(std::string_view text);
bool matches_pattern(std::string_view pattern, std::string_view path);
// A pattern, or a path with all below it.
bool matches_path(std::string_view pattern_or_path, std::string_view path);

}  // namespace virt
