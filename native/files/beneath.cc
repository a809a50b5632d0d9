#include "files/beneath.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

namespace virt {

UniqueFd try_open_beneath(int directory, const std::string& path, int flags) {
  open_how how{};
  how.flags = static_cast<uint64_t>(flags | O_CLOEXEC);
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
  constexpr int kMostTries = 64;
  for (int i = 0; i < kMostTries; ++i) {
    const auto fd = static_cast<int>(
        syscall(SYS_openat2, directory, path.empty() ? "." : path.c_str(), &how, sizeof how));
    // A rename somewhere on the machine makes the kernel ask to be asked again.
    if (fd >= 0 || (errno != EAGAIN && errno != EINTR)) return UniqueFd(fd);
  }
  return UniqueFd();
}

std::string path_of_fd(int fd) { return "/proc/self/fd/" + std::to_string(fd); }

UniqueFd try_reopen(int fd, int flags) {
  return UniqueFd(open(path_of_fd(fd).c_str(), flags | O_CLOEXEC | O_NOCTTY | O_NONBLOCK));
}

std::string parent_path(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "" : path.substr(0, slash);
}

std::string last_name(const std::string& path) { return path.substr(path.rfind('/') + 1); }

}  // namespace virt
