// Absolute paths, as text and as the file system resolves them. No exceptions: used by virt-init.
#pragma once

#include <string>

namespace virt {

// Where a symbolic link leads. Empty if it is none.
std::string read_link_of(const std::string& path);
// What /proc says of a file that has no name any more.
bool is_gone(const std::string& path);
// What the kernel makes up is not the world outside: /proc, /sys, devices.
bool is_made_up(const std::string& path);
// The path without symbolic links, dots and double slashes before its last part.
std::string canonical_path(const std::string& path);
// Likewise; with `follow` the last part too, where there is something at its end.
std::string resolved_path(const std::string& path, bool follow);

}  // namespace virt
