#include "init/spawn.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>

#include "init/rights.h"
#include "init/streams.h"
#include "interpose/filter.h"
#include "sys/fd.h"

namespace virt::init {
namespace {

std::vector<char*> pointers(const std::vector<std::string>& list) {
  std::vector<char*> out;
  for (const auto& s : list) out.push_back(const_cast<char*>(s.c_str()));
  out.push_back(nullptr);
  return out;
}

// execvp's search, but with the PATH the program is given, not ours (exec(3)).
int exec_searching(const Program& program) {
  const auto argv = pointers(program.argv), env = pointers(program.env);
  const std::string& name = program.argv[0];
  if (name.find('/') != std::string::npos) {
    execve(name.c_str(), argv.data(), env.data());
    return errno;
  }
  std::string path = "/usr/local/bin:/usr/bin:/bin";
  for (const auto& e : program.env) {
    if (e.compare(0, 5, "PATH=") == 0) path = e.substr(5);
  }
  int result = ENOENT;
  size_t start = 0;
  while (start <= path.size()) {
    size_t end = path.find(':', start);
    if (end == std::string::npos) end = path.size();
    const std::string dir = path.substr(start, end - start);
    const std::string file = (dir.empty() ? "." : dir) + "/" + name;
    execve(file.c_str(), argv.data(), env.data());
    const int error = errno;
    // A directory we may not even search has no such file, as shells see it.
    struct stat st {};
    if (error == EACCES && stat(file.c_str(), &st) == 0) result = EACCES;
    if (error != ENOENT && error != ENOTDIR && error != EACCES) return error;
    start = end + 1;
  }
  return result;
}

int become(const Program& program) {
  setsid();
  // The three may be in each other's way: move them above first.
  int above[3];
  for (int i = 0; i < 3; ++i) {
    UniqueFd own;
    if (program.isolated) {
      if (const int error = reopen_in_pod(program.stdio[i], &own); error != 0) return error;
    }
    above[i] = fcntl(own ? own.get() : program.stdio[i], F_DUPFD_CLOEXEC, 10);
    if (above[i] < 0) return errno;
  }
  for (int i = 0; i < 3; ++i) {
    if (dup2(above[i], i) < 0) return errno;
    // Node makes its own streams non-blocking where it can; a program does not expect that of what it is given.
    const int flags = fcntl(i, F_GETFL);
    if ((flags & O_NONBLOCK) != 0) fcntl(i, F_SETFL, flags & ~O_NONBLOCK);
  }
  if (program.terminal && ioctl(0, TIOCSCTTY, 0) != 0) return errno;
  close_range(3, ~0U, CLOSE_RANGE_CLOEXEC);
  for (int s = 1; s <= SIGRTMAX; ++s) signal(s, SIG_DFL);  // NOLINT: fails for SIGKILL and SIGSTOP, rightly
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  if (program.open_files != 0) {
    rlimit limit{};
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = program.open_files < limit.rlim_max ? program.open_files : limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
  }
  if (!program.filtered) {
    if (const int error = install_filter(0, program.sockets, nullptr); error != 0) return error;
  }
  if (program.isolated) {
    if (const int error = limit_rights(); error != 0) return error;
  }
  if (!program.cwd.empty() && chdir(program.cwd.c_str()) != 0) return -errno;
  return exec_searching(program);
}

}  // namespace

pid_t spawn(const Program& program, int* error) {
  int report[2];
  *error = 0;
  if (program.argv.empty() || program.argv[0].empty()) {
    *error = ENOENT;
    return -1;
  }
  if (pipe2(report, O_CLOEXEC) != 0) {
    *error = errno;
    return -1;
  }
  UniqueFd read_end(report[0]), write_end(report[1]);
  const pid_t pid = fork();
  if (pid < 0) {
    *error = errno;
    return -1;
  }
  if (pid == 0) {
    const int e = become(program);
    (void)!write(write_end.get(), &e, sizeof e);
    _exit(127);
  }
  write_end.reset();
  // Ends with nothing read when exec closed the child's end.
  ssize_t n;
  do {
    n = read(read_end.get(), error, sizeof *error);
  } while (n < 0 && errno == EINTR);
  if (n != static_cast<ssize_t>(sizeof *error)) {
    *error = 0;
    return pid;
  }
  waitpid(pid, nullptr, 0);
  return -1;
}

}  // namespace virt::init
