#include "init/namespaces.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include "init/isolation.h"
#include "init/mounts.h"
#include "init/overlay.h"
#include "init/rights.h"
#include "sys/fd.h"

#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x00000080
#endif

namespace virt::init {
namespace {

using protocol::LaunchPlan;
using protocol::Remap;

constexpr int64_t kNanosecondsPerSecond = 1'000'000'000;

bool write_text(const char* path, const std::string& text) {
  UniqueFd fd(open(path, O_WRONLY | O_CLOEXEC));
  return fd && write(fd.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size());
}

// Directories made on the host so that a remap has something to be mounted on, deepest last. Only where the
// user may write anyway; elsewhere a remap to a missing path is answered with a private tmpfs
// (cover_missing).
std::vector<std::string>& made_mount_points() {
  static std::vector<std::string> list;
  return list;
}

bool is_directory(const std::string& path) {
  struct stat st {};
  return stat(path.c_str(), &st) == 0 && S_ISDIR(st.st_mode);
}

bool exists(const std::string& path) {
  struct stat st {};
  return lstat(path.c_str(), &st) == 0;
}

std::string parent_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == 0 || slash == std::string::npos ? "/" : path.substr(0, slash);
}

// Makes `path` (a directory, or an empty file) and its missing parents. True if it is there afterwards.
bool make_mount_point(const std::string& path, bool directory) {
  if (exists(path)) return true;
  if (path != "/" && !make_mount_point(parent_of(path), true)) return false;
  if (directory) {
    if (mkdir(path.c_str(), 0755) != 0) return false;
  } else {
    UniqueFd fd(open(path.c_str(), O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0644));
    if (!fd) return false;
  }
  made_mount_points().push_back(path);
  return true;
}

// The user may not make the mount point on the host: put a tmpfs where the nearest existing directory is,
// with everything that was in it bound back, and make the mount point in that. Only this pod sees it. The
// root itself cannot be mounted over, so it is built aside and pivoted to (pivot_root(2)).
Step cover_missing(const std::string& path, bool directory) {
  std::string base = parent_of(path);
  while (!is_directory(base)) base = parent_of(base);
  const bool root = base == "/";
  const std::string stage = root ? "/tmp" : base;

  struct stat st {};
  std::vector<Covered> contents;
  if (stat(base.c_str(), &st) != 0 || !list_covered(base, &contents)) {
    return failed("listing the directory above a remap");
  }
  char options[64];
  std::snprintf(options, sizeof options, "mode=%o", st.st_mode & 07777U);
  if (mount("virt-run", stage.c_str(), "tmpfs", MS_NOSUID | MS_NODEV, options) != 0) {
    return failed("covering the directory above a remap");
  }
  for (const Covered& c : contents) {
    const std::string target = stage + "/" + c.name;
    if (!c.link.empty()) {
      if (symlink(c.link.c_str(), target.c_str()) != 0)
        return failed("rebuilding the directory above a remap");
      continue;
    }
    if ((c.directory ? mkdir(target.c_str(), 0755) : mknod(target.c_str(), S_IFREG | 0644, 0)) != 0 ||
        !mount_tree(c.fd, target)) {
      return failed("rebuilding the directory above a remap");
    }
  }
  if (root) {
    if (chdir(stage.c_str()) != 0 || syscall(SYS_pivot_root, ".", ".") != 0 ||
        umount2(".", MNT_DETACH) != 0 || chdir("/") != 0) {
      return failed("changing the root directory for a remap");
    }
  }
  // What is made in the tmpfs goes with it; it is not to be removed from the host afterwards.
  const size_t before = made_mount_points().size();
  const bool made = make_mount_point(path, directory);
  made_mount_points().resize(before);
  return made ? done() : failed("making the mount point of a remap");
}

// The host's terminals are out of sight once the pod's own are mounted: they are held before.
UniqueFd hold_terminal(const Remap& remap) {
  return remap.from.compare(0, 9, "/dev/pts/") == 0 ? clone_tree(AT_FDCWD, remap.from) : UniqueFd();
}

Step apply_remap(const Remap& remap, UniqueFd source) {
  // Hold the source before anything is mounted over it.
  if (!source) source = clone_tree(AT_FDCWD, remap.from);
  struct stat st {};
  if (!source || fstat(source.get(), &st) != 0) return failed("finding what a remap points to");
  const bool directory = S_ISDIR(st.st_mode);
  if (!make_mount_point(remap.to, directory)) {
    if (const Step s = cover_missing(remap.to, directory); s.failed()) return s;
  }
  return mount_tree(source, remap.to) ? done() : failed("mounting a remap");
}

Step set_clocks(const LaunchPlan& plan) {
  if (unshare(CLONE_NEWTIME) != 0) return failed("making a time namespace");
  // Seconds may be negative, nanoseconds not (time_namespaces(7)).
  const auto line = [](const char* clock, int64_t ns) {
    int64_t seconds = ns / kNanosecondsPerSecond, rest = ns % kNanosecondsPerSecond;
    if (rest < 0) {
      rest += kNanosecondsPerSecond;
      --seconds;
    }
    char text[80];
    std::snprintf(text, sizeof text, "%s %lld %lld\n", clock, static_cast<long long>(seconds),
                  static_cast<long long>(rest));
    return std::string(text);
  };
  if (!write_text("/proc/self/timens_offsets",
                  line("monotonic", plan.monotonic_offset_ns) + line("boottime", plan.boottime_offset_ns))) {
    return failed("setting the clocks");
  }
  return done();
}

}  // namespace

Step enter_namespaces(const LaunchPlan& plan) {
  const bool user = (plan.flags & protocol::kPlanUserNamespace) != 0;
  const int flags = CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS |
                    ((plan.flags & protocol::kPlanNoNetwork) != 0 ? CLONE_NEWNET : 0);
  if ((plan.flags & protocol::kPlanAllIds) != 0) return enter_with_all_ids(flags);
  if (unshare(flags | (user ? CLONE_NEWUSER : 0)) != 0) {
    return failed(user ? "making a user namespace" : "making namespaces");
  }
  if (!user) return done();
  // A new user namespace makes us undumpable; our own supervisors must be able to look into init.
  prctl(PR_SET_DUMPABLE, 1);
  if (!write_text("/proc/self/setgroups", "deny")) return failed("giving up setgroups");
  const std::string uid = std::to_string(plan.uid), gid = std::to_string(plan.gid);
  if (!write_text("/proc/self/uid_map", uid + " " + uid + " 1\n")) return failed("mapping the user id");
  if (!write_text("/proc/self/gid_map", gid + " " + gid + " 1\n")) return failed("mapping the group id");
  return done();
}

Step furnish(const LaunchPlan& plan) {
  const bool user = (plan.flags & protocol::kPlanUserNamespace) != 0;
  const bool isolated = (plan.flags & protocol::kPlanIsolated) != 0;
  // Mounts the host makes later still appear here, but where they would break a rule; ours never reach the host.
  const unsigned propagation = isolated ? MS_PRIVATE : MS_SLAVE;
  if (mount(nullptr, "/", nullptr, propagation | MS_REC, nullptr) != 0) {
    return failed("separating the mounts");
  }
  std::vector<UniqueFd> terminals;
  for (const Remap& remap : plan.remaps) terminals.push_back(hold_terminal(remap));
  Layers layers(plan);
  if (const Step s = layers.open(); s.failed()) return s;
  if (mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, nullptr) != 0) {
    return failed("mounting /proc");
  }
  // gid 5 is the tty group by Debian's and most others' policy; in our user namespace it is not mapped, and
  // root in a container may not have it either (EINVAL).
  const bool one_id = user && (plan.flags & protocol::kPlanAllIds) == 0;
  const auto mount_pts = [](const char* options) {
    return mount("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, options) == 0;
  };
  if ((one_id || !mount_pts("newinstance,ptmxmode=0666,mode=0620,gid=5")) &&
      !mount_pts("newinstance,ptmxmode=0666,mode=0620")) {
    return failed("mounting /dev/pts");
  }
  struct stat st {};
  if (lstat("/dev/ptmx", &st) == 0 && !S_ISLNK(st.st_mode) &&
      mount("/dev/pts/ptmx", "/dev/ptmx", nullptr, MS_BIND, nullptr) != 0) {
    return failed("mounting /dev/ptmx");
  }
  for (size_t i = 0; i < plan.remaps.size(); ++i) {
    if (const Step s = layers.mount_above(plan.remaps[i].to); s.failed()) return s;
    if (const Step s = apply_remap(plan.remaps[i], std::move(terminals[i])); s.failed()) return s;
    layers.passed(plan.remaps[i].to);
  }
  // Before the rules: an overlay over a place would show what a rule has hidden below it.
  if (const Step s = layers.mount_rest(); s.failed()) return s;
  for (const protocol::MountRule& rule : plan.mounts) {
    // Not made on the host, where others would read it.
    if (rule.operation != protocol::MountOperation::kFile || exists(rule.path)) continue;
    if (const Step s = cover_missing(rule.path, false); s.failed()) return s;
  }
  if (const Step s = isolate(plan); s.failed()) return s;
  if (!plan.hostname.empty() && sethostname(plan.hostname.data(), plan.hostname.size()) != 0) {
    return failed("setting the host name");
  }
  if ((plan.flags & protocol::kPlanRebuild) != 0) return set_clocks(plan);
  return done();
}

void remove_mount_points() {
  auto& list = made_mount_points();
  for (auto it = list.rbegin(); it != list.rend(); ++it) {
    while (umount2(it->c_str(), MNT_DETACH) == 0) {  // what a remap shows, and an overlay over that
    }
    if (rmdir(it->c_str()) != 0) {
      struct stat st {};
      if (lstat(it->c_str(), &st) == 0 && S_ISREG(st.st_mode) && st.st_size == 0) unlink(it->c_str());
    }
  }
  list.clear();
}

void leave_mounts() {
  // Something empty over a directory that every pod has, which then becomes the root.
  if (mount("none", "/proc", "tmpfs", MS_NOSUID | MS_NODEV, "size=4k,mode=0700") != 0 || chdir("/proc") != 0)
    return;
  if (syscall(SYS_pivot_root, ".", ".") == 0) umount2(".", MNT_DETACH);
  (void)!chdir("/");
}

}  // namespace virt::init
