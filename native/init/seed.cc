#include "init/seed.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <linux/sched.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <string>

#include "arch/agent.h"
#include "init/region.h"
#include "init/streams.h"
#include "interpose/filter.h"
#include "sys/fd.h"

namespace virt::init {
namespace {

constexpr size_t kPage = 4096;

// A program that is executed by others than the namespace's root keeps the ambient capabilities alone
// (capabilities(7)).
int keep_capabilities() {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2] = {};
  if (syscall(SYS_capget, &header, data) != 0) return errno;
  for (auto& d : data) d.inheritable = d.permitted;
  if (syscall(SYS_capset, &header, data) != 0) return errno;
  for (unsigned cap = 0; cap < 64; ++cap) {
    if ((data[cap / 32].permitted >> (cap % 32) & 1) != 0)
      prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, cap, 0, 0);
  }
  return 0;
}

int give_up_ambient() {
  if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) != 0) return errno;
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2] = {};
  if (syscall(SYS_capget, &header, data) != 0) return errno;
  for (auto& d : data) d.inheritable = 0;
  return syscall(SYS_capset, &header, data) == 0 ? 0 : errno;
}

int execute_seed(const SeedPlan& plan, int own_program, int report) {
  int above[3];
  for (int i = 0; i < 3; ++i) {
    UniqueFd own;
    if (plan.isolated) {
      if (const int error = reopen_in_pod(plan.stdio[i], &own); error != 0) return error;
    }
    above[i] = fcntl(own ? own.get() : plan.stdio[i], F_DUPFD_CLOEXEC, 10);
    if (above[i] < 0) return errno;
  }
  for (int i = 0; i < 3; ++i) {
    if (dup2(above[i], i) < 0) return errno;
  }
  // Beyond the three no descriptor survives but these.
  for (const int fd : {plan.commit, report}) {
    if (fcntl(fd, F_SETFD, 0) != 0) return errno;
  }
  if (const int error = keep_capabilities(); error != 0) return error;
  std::string words[] = {"virt-init",
                         kSeedArgument,
                         std::to_string(plan.region),
                         std::to_string(plan.size),
                         std::to_string(plan.commit),
                         std::to_string(report),
                         plan.filtered ? "1" : "0",
                         plan.sockets == Sockets::kSeparated ? "1" : "0"};
  char* argv[std::size(words) + 1] = {};
  for (size_t i = 0; i < std::size(words); ++i) argv[i] = words[i].data();
  char* env[] = {nullptr};
  syscall(SYS_execveat, own_program, "", argv, env, AT_EMPTY_PATH);
  return errno;
}

int furnish_seed(uint64_t start, uint64_t size, int commit, bool filtered, Sockets sockets) {
  if (const int error = give_up_ambient(); error != 0) return error;
  if (!filtered) {
    if (const int error = install_filter(0, sockets, nullptr); error != 0) return error;
  }
  auto* region = reinterpret_cast<char*>(start);  // NOLINT(performance-no-int-to-ptr): the engine chose it
  void* code =
      mmap(region, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
  if (code != region) return code == MAP_FAILED ? errno : EEXIST;
  std::memcpy(region + kRegionCode, agent_code(), agent_code_size());
  if (mprotect(region + kRegionCode, kPage, PROT_READ | PROT_EXEC) != 0) return errno;
  void* word = mmap(region + kRegionCommit, kPage, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, commit, 0);
  return word == MAP_FAILED ? errno : 0;
}

}  // namespace

int run_seed(char** arguments) {
  const int commit = std::atoi(arguments[2]), report = std::atoi(arguments[3]);
  const int error =
      furnish_seed(std::strtoull(arguments[0], nullptr, 10), std::strtoull(arguments[1], nullptr, 10), commit,
                   std::strcmp(arguments[4], "1") == 0,
                   std::strcmp(arguments[5], "1") == 0 ? Sockets::kSeparated : Sockets::kAny);
  (void)!write(report, &error, sizeof error);
  if (error != 0) return 1;
  syscall(SYS_close_range, 3U, ~0U, 0U);
  // Every signal is blocked (as in init): nothing but the engine or SIGKILL ends this.
  for (;;) pause();
}

pid_t grow_seed(const SeedPlan& plan, int own_program) {
  int report[2];
  if (pipe2(report, O_CLOEXEC) != 0) return -errno;
  UniqueFd read_end(report[0]), write_end(report[1]);
  const auto wanted = static_cast<pid_t>(plan.pid);
  clone_args args{};
  args.exit_signal = SIGCHLD;
  args.set_tid = reinterpret_cast<uint64_t>(&wanted);
  args.set_tid_size = 1;
  const auto pid = static_cast<pid_t>(syscall(SYS_clone3, &args, sizeof args));
  if (pid < 0) return -errno;
  if (pid == 0) {
    const int error = execute_seed(plan, own_program, write_end.get());
    (void)!write(write_end.get(), &error, sizeof error);
    _exit(1);
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
