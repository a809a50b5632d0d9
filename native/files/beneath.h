// Opening what lies beneath a directory, and nothing else: no symbolic link on the way is followed, so that
// whoever can write there, or wrote the list of names, leads nowhere (openat2(2)).
#pragma once

#include <string>

#include "sys/fd.h"

namespace virt {

// -1 with errno if it cannot be opened: ELOOP for a link on the way, EXDEV for a way out. `path` is relative; ""
// is the directory itself. A link at its end is opened itself with O_PATH | O_NOFOLLOW.
UniqueFd try_open_beneath(int directory, const std::string& path, int flags);

// A new description of what an O_PATH descriptor stands for.
UniqueFd try_reopen(int fd, int flags);

// "/proc/self/fd/7", for calls that take a path.
std::string path_of_fd(int fd);

// "/a/b/c" → "/a/b" and "c"; what has no slash lies in "".
std::string parent_path(const std::string& path);
std::string last_name(const std::string& path);

}  // namespace virt
