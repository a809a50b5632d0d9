#include "init/streams.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cerrno>
#include <string>

namespace virt::init {
namespace {

// /dev/null, zero, full, random, urandom (devices.txt): nothing is behind them.
bool harmless(const struct stat& st) {
  constexpr unsigned kMemoryDevices = 1;
  const unsigned n = minor(st.st_rdev);
  return major(st.st_rdev) == kMemoryDevices && (n == 3 || n == 5 || (n >= 7 && n <= 9));
}

bool leads_further(int fd, const struct stat& st, int flags) {
  if (S_ISDIR(st.st_mode)) return true;
  const bool readable_only = (flags & O_ACCMODE) == O_RDONLY;  // O_PATH too
  if (!readable_only) return false;
  // A file that no name leads to is nobody else's.
  if (S_ISREG(st.st_mode)) return st.st_nlink > 0;
  if (S_ISCHR(st.st_mode)) return !harmless(st) && isatty(fd) == 0;
  return S_ISBLK(st.st_mode);
}

std::string link_of(int fd) { return "/proc/self/fd/" + std::to_string(fd); }

}  // namespace

int reopen_in_pod(int given, UniqueFd* fd) {
  struct stat st {};
  const int flags = fcntl(given, F_GETFL);
  if (flags < 0 || fstat(given, &st) != 0) return errno;
  if (!leads_further(given, st, flags)) {
    fd->reset(fcntl(given, F_DUPFD_CLOEXEC, 3));
    return *fd ? 0 : errno;
  }
  char path[4096];
  const ssize_t size = readlink(link_of(given).c_str(), path, sizeof path - 1);
  if (size < 0) return errno;
  path[size] = '\0';
  // Looked at before it is opened: a program may have put a fifo there, which would keep us waiting.
  const UniqueFd place(open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC));
  struct stat there {};
  if (!place || fstat(place.get(), &there) != 0 || there.st_dev != st.st_dev || there.st_ino != st.st_ino) {
    return EXDEV;
  }
  constexpr int kSpent = O_CREAT | O_EXCL | O_TRUNC | O_NOFOLLOW;
  fd->reset(open(link_of(place.get()).c_str(), (flags & ~kSpent) | O_NOCTTY | O_CLOEXEC));
  if (!*fd) return errno;
  if (S_ISREG(st.st_mode) && (flags & O_PATH) == 0) lseek(fd->get(), lseek(given, 0, SEEK_CUR), SEEK_SET);
  return 0;
}

}  // namespace virt::init
