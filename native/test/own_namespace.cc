#include "test/own_namespace.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <stdexcept>
#include <string>

namespace virt::test {
namespace {

void write_text(const char* path, const std::string& text) {
  const int fd = open(path, O_WRONLY | O_CLOEXEC);
  const bool written = fd >= 0 && write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size());
  if (fd >= 0) close(fd);
  if (!written) throw std::runtime_error(std::string("a test cannot write ") + path);
}

}  // namespace

void own_namespace() {
  static bool entered = false;
  if (entered) return;
  entered = true;
  const std::string uid = std::to_string(geteuid()), gid = std::to_string(getegid());
  if (unshare(CLONE_NEWNS | (geteuid() == 0 ? 0 : CLONE_NEWUSER)) != 0) {
    throw std::runtime_error("a test cannot make namespaces");
  }
  if (geteuid() == 0) return;
  prctl(PR_SET_DUMPABLE, 1);
  write_text("/proc/self/setgroups", "deny");
  write_text("/proc/self/uid_map", uid + " " + uid + " 1\n");
  write_text("/proc/self/gid_map", gid + " " + gid + " 1\n");
}

}  // namespace virt::test
