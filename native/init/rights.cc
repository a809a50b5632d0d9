#include "init/rights.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "init/mounts.h"
#include "sys/fd.h"

namespace virt::init {
namespace {

// What root keeps, all of it about its own files, ids and processes. Not there, among others: CAP_SYS_ADMIN (mounts,
// namespaces), CAP_SYS_PTRACE (init), CAP_SYS_RESOURCE (the limit of namespaces), CAP_NET_ADMIN, CAP_MKNOD.
// src/pod/isolation.ts has the same list, for images.
constexpr unsigned kRootKeeps[] = {CAP_CHOWN,    CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH,  CAP_FOWNER,
                                   CAP_FSETID,   CAP_KILL,         CAP_SETGID,           CAP_SETUID,
                                   CAP_SETPCAP,  CAP_SETFCAP,      CAP_NET_BIND_SERVICE, CAP_NET_RAW,
                                   CAP_IPC_LOCK, CAP_IPC_OWNER,    CAP_SYS_CHROOT,       CAP_SYS_NICE,
                                   CAP_LEASE,    CAP_AUDIT_WRITE};

bool root_keeps(unsigned capability) {
  for (const unsigned kept : kRootKeeps) {
    if (kept == capability) return true;
  }
  return false;
}

bool write_file(const std::string& path, const std::string& text) {
  UniqueFd fd(open(path.c_str(), O_WRONLY | O_CLOEXEC));
  return fd && write(fd.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size());
}

// /proc/self/uid_map with every id inside as it is outside. Its lines are: inside, outside, count.
std::string same_ids(const char* path) {
  UniqueFd fd(open(path, O_RDONLY | O_CLOEXEC));
  char text[16384];
  const ssize_t size = fd ? read(fd.get(), text, sizeof text - 1) : -1;
  if (size <= 0) return {};
  text[size] = '\0';
  std::string out;
  char* at = text;
  for (;;) {
    char* end = nullptr;
    const unsigned long inside = std::strtoul(at, &end, 10);
    if (end == at) return out;
    std::strtoul(end, &end, 10);
    const unsigned long count = std::strtoul(end, &end, 10);
    out += std::to_string(inside) + " " + std::to_string(inside) + " " + std::to_string(count) + "\n";
    at = end;
  }
}

bool is_number(const char* name) {
  for (; *name != '\0'; ++name) {
    if (*name < '0' || *name > '9') return false;
  }
  return true;
}

// What the kernel shows of itself in /proc belongs to root, and no capability is asked for: /proc/sys, sysrq-trigger …
Step protect_kernel_files() {
  DIR* list = opendir("/proc");
  if (list == nullptr) return failed("isolating: reading /proc");
  std::vector<std::string> paths;
  while (const dirent* entry = readdir(list)) {  // NOLINT(concurrency-mt-unsafe): the list is ours alone
    const std::string path = std::string("/proc/") + entry->d_name;
    struct stat st {};
    if (entry->d_name[0] == '.' || is_number(entry->d_name) || lstat(path.c_str(), &st) != 0) continue;
    if (S_ISDIR(st.st_mode) || (S_ISREG(st.st_mode) && (st.st_mode & 0222) != 0)) paths.push_back(path);
  }
  closedir(list);
  for (const std::string& path : paths) {
    const UniqueFd tree = clone_tree(AT_FDCWD, path);
    if (!tree || !change_mount(tree, kReadOnlyMount, 0, true) || !mount_tree(tree, path)) {
      return failed("isolating: protecting the kernel's files in /proc");
    }
  }
  return done();
}

}  // namespace

Step enter_with_all_ids(int flags) {
  constexpr const char* kWhat = "making a user namespace";
  const std::string uids = same_ids("/proc/self/uid_map"), gids = same_ids("/proc/self/gid_map");
  if (uids.empty() || gids.empty()) return failed(kWhat);
  // The maps are written by one who stays outside, and has the right to give away all these ids.
  int ready[2];
  if (pipe2(ready, O_CLOEXEC) != 0) return failed(kWhat);
  UniqueFd wait(ready[0]), go(ready[1]);
  const std::string dir = "/proc/" + std::to_string(getpid());
  const pid_t helper = fork();
  if (helper < 0) return failed(kWhat);
  if (helper == 0) {
    go.reset();
    char c;
    if (read(wait.get(), &c, 1) != 1) _exit(1);  // it could not unshare
    _exit(write_file(dir + "/uid_map", uids) && write_file(dir + "/gid_map", gids) ? 0 : errno);
  }
  const int error = unshare(flags | CLONE_NEWUSER) == 0 ? 0 : errno;
  if (error == 0) (void)!write(go.get(), "", 1);
  go.reset();
  int status = 0;
  while (waitpid(helper, &status, 0) < 0 && errno == EINTR) {
  }
  errno = error != 0 ? error : WIFEXITED(status) ? WEXITSTATUS(status) : EPERM;
  if (errno != 0) return failed(kWhat);
  prctl(PR_SET_DUMPABLE, 1);
  return done();
}

Step limit_namespaces(const protocol::LaunchPlan& plan) {
  if ((plan.flags & protocol::kPlanIsolated) == 0) return done();
  if (!write_file("/proc/sys/user/max_user_namespaces", "0")) {
    return failed("isolating: forbidding user namespaces");
  }
  return (plan.flags & protocol::kPlanAllIds) != 0 ? protect_kernel_files() : done();
}

int limit_rights() {
  const bool root = getuid() == 0;
  for (unsigned cap = 0; prctl(PR_CAPBSET_READ, cap) >= 0; ++cap) {
    if (root && root_keeps(cap)) continue;
    if (prctl(PR_CAPBSET_DROP, cap) != 0) return errno;
  }
  prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
  // execve(2) takes the permitted ones from the bounding and from the inheritable set.
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2] = {};
  if (syscall(SYS_capget, &header, data) != 0) return errno;
  for (auto& d : data) d.inheritable = 0;
  return syscall(SYS_capset, &header, data) == 0 ? 0 : errno;
}

Step raise_loopback() {
  constexpr const char* kWhat = "isolating: making the loopback interface";
  UniqueFd fd(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ifreq request{};
  std::strcpy(request.ifr_name, "lo");
  if (!fd || ioctl(fd.get(), SIOCGIFFLAGS, &request) != 0) return failed(kWhat);
  request.ifr_flags |= IFF_UP;
  return ioctl(fd.get(), SIOCSIFFLAGS, &request) == 0 ? done() : failed(kWhat);
}

}  // namespace virt::init
