#include "binding/probe.h"

#include <fcntl.h>
#include <linux/kcmp.h>
#include <linux/userfaultfd.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>

#include "arch/xstate.h"
#include "base/error.h"
#include "sys/fd.h"

#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x00000080
#endif

namespace virt {
namespace {

Value verdict(bool ok, int error) { return ok ? Value(true) : Value(errno_name(error)); }

// unshare(2) in a child that does nothing else: a threaded process may not make a user namespace itself.
// vfork semantics keep Node's memory out of it.
Value try_unshare(int flags) {
  int report[2];
  if (pipe2(report, O_CLOEXEC) != 0) return verdict(false, errno);
  UniqueFd read_end(report[0]), write_end(report[1]);
  const auto pid = static_cast<pid_t>(syscall(SYS_fork));
  if (pid < 0) return verdict(false, errno);
  if (pid == 0) {
    const int error = syscall(SYS_unshare, flags) == 0 ? 0 : errno;
    (void)!write(report[1], &error, sizeof error);
    syscall(SYS_exit_group, 0);
  }
  write_end.reset();
  int error = EIO;
  (void)!read(read_end.get(), &error, sizeof error);
  while (waitpid(pid, nullptr, 0) < 0 && errno == EINTR) {
  }
  return verdict(error == 0, error);
}

// Mounts whose attributes can be changed all at once, and a network namespace; root makes a user namespace for it too.
Value try_isolation() {
  constexpr long kMountSetAttributes = 442;
  if (syscall(kMountSetAttributes, -1, "", 0, nullptr, 0) < 0 && errno == ENOSYS)
    return verdict(false, ENOSYS);
  return try_unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWNET);
}

Value try_userfaultfd() {
  UniqueFd fd(static_cast<int>(syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY)));
  return verdict(static_cast<bool>(fd), errno);
}

Value try_pagemap_scan() {
  struct Argument {
    uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages, inverted, mask, any, ret;
  } a{};
  a.size = sizeof a;
  UniqueFd fd(open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC));
  const int r = fd ? ioctl(fd.get(), _IOWR('f', 16, Argument), &a) : -1;
  return verdict(r >= 0, errno);
}

Value try_kcmp() {
  const pid_t self = getpid();
  const long r = syscall(SYS_kcmp, self, self, KCMP_FILE, 0, 0);
  return verdict(r == 0, errno);
}

Value try_pidfd_getfd() {
  UniqueFd pidfd(static_cast<int>(syscall(SYS_pidfd_open, getpid(), 0)));
  UniqueFd fd(pidfd ? static_cast<int>(syscall(SYS_pidfd_getfd, pidfd.get(), pidfd.get(), 0)) : -1);
  return verdict(static_cast<bool>(fd), errno);
}

Value try_tid_address() {
  int* address = nullptr;
  return verdict(prctl(PR_GET_TID_ADDRESS, &address) == 0, errno);
}

}  // namespace

Value probe_host() {
  utsname name{};
  uname(&name);
  Value out = Value::map();
  out.set("kernel", name.release)
      .set("arch", name.machine)
      .set("pageSizeBytes", static_cast<int64_t>(sysconf(_SC_PAGESIZE)));
  Value f = Value::map();
  const bool root = geteuid() == 0;
  const int user = root ? 0 : CLONE_NEWUSER;
  f.set("namespaces", try_unshare(user | CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS));
  f.set("isolation", try_isolation());
  f.set("timeNamespace", try_unshare(user | CLONE_NEWTIME));
  f.set("kcmp", try_kcmp());
  f.set("pidfdGetfd", try_pidfd_getfd());
  f.set("checkpointRestore", try_tid_address());
  f.set("userfaultfd", try_userfaultfd());
  f.set("pagemapScan", try_pagemap_scan());
  out.set("features", std::move(f));
  out.set("xstate", XstateLayout::of_this_cpu().to_value());
  return out;
}

}  // namespace virt
