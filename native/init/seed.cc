#include "init/seed.h"

#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>

#include "arch/agent.h"
#include "init/region.h"
#include "interpose/filter.h"
#include "sys/fd.h"

namespace virt::init {
namespace {

constexpr size_t kPage = 4096;

int become_seed(const SeedPlan& plan) {
  int above[3];
  for (int i = 0; i < 3; ++i) {
    above[i] = fcntl(plan.stdio[i], F_DUPFD, 10);
    if (above[i] < 0) return errno;
  }
  for (int i = 0; i < 3; ++i) {
    if (dup2(above[i], i) < 0) return errno;
  }
  if (const int error = install_filter(); error != 0) return error;
  auto* region =
      reinterpret_cast<char*>(plan.region);  // NOLINT(performance-no-int-to-ptr): the engine chose it
  void* code = mmap(region, plan.size, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
  if (code != region) return code == MAP_FAILED ? errno : EEXIST;
  std::memcpy(region + kRegionCode, agent_code(), agent_code_size());
  if (mprotect(region + kRegionCode, kPage, PROT_READ | PROT_EXEC) != 0) return errno;
  if (mremap(plan.commit, kPage, kPage, MREMAP_MAYMOVE | MREMAP_FIXED, region + kRegionCommit) ==
      MAP_FAILED) {
    return errno;
  }
  return 0;
}

}  // namespace

pid_t grow_seed(const SeedPlan& plan) {
  int report[2];
  if (pipe2(report, O_CLOEXEC) != 0) return -errno;
  UniqueFd read_end(report[0]), write_end(report[1]);
  const uint64_t pid_wanted = static_cast<uint64_t>(plan.pid);
  const auto pid32 = static_cast<pid_t>(pid_wanted);
  clone_args args{};
  args.exit_signal = SIGCHLD;
  args.set_tid = reinterpret_cast<uint64_t>(&pid32);
  args.set_tid_size = 1;
  const auto pid = static_cast<pid_t>(syscall(SYS_clone3, &args, sizeof args));
  if (pid < 0) return -errno;
  if (pid == 0) {
    const int error = become_seed(plan);
    (void)!write(write_end.get(), &error, sizeof error);
    if (error != 0) _exit(1);
    syscall(SYS_close_range, 3U, ~0U, 0U);
    // Every signal is blocked (as in init): nothing but the engine or SIGKILL ends this.
    for (;;) pause();
  }
  write_end.reset();
  int error = 0;
  ssize_t n;
  do {
    n = read(read_end.get(), &error, sizeof error);
  } while (n < 0 && errno == EINTR);
  if (n != static_cast<ssize_t>(sizeof error)) error = ECHILD;
  if (error == 0) return pid;
  waitpid(pid, nullptr, __WALL);
  return -error;
}

void forget_launcher_streams() {
  UniqueFd null(open("/dev/null", O_RDWR | O_CLOEXEC));
  for (int i = 0; i < 3; ++i) dup2(null.get(), i);
}

}  // namespace virt::init
