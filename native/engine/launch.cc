#include "engine/launch.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include <cerrno>
#include <csignal>
#include <cstring>

#include "base/error.h"
#include "base/scope_exit.h"
#include "sys/file.h"

namespace virt {
namespace {

constexpr int kFirstPassed = 3;  // plan, control, listener: 3, 4, 5 in virt-init
constexpr int kAbove = 10;

UniqueFd plan_file(const protocol::LaunchPlan& plan) {
  UniqueFd fd(memfd_create("virt-run-plan", MFD_CLOEXEC));
  if (!fd) throw OsError("memfd_create", errno, "writing the launch plan");
  const std::string bytes = protocol::encode(plan);
  if (bytes.size() > protocol::kMostFrameBytes) {
    throw OsError("ERR_LAUNCH", "execve", E2BIG, "the arguments and environment are too large");
  }
  write_exactly(fd.get(), bytes.data(), bytes.size(), 0, "writing the launch plan");
  return fd;
}

UniqueFd bound_listener(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) {
    throw OsError("ERR_LAUNCH", "bind", ENAMETOOLONG,
                  "making the pod's control socket (set XDG_RUNTIME_DIR to a shorter path)")
        .at_path(path);
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) throw OsError("socket", errno, "making the pod's control socket");
  if (bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    throw OsError("bind", errno, "making the pod's control socket").at_path(path);
  }
  chmod(path.c_str(), 0600);
  return fd;
}

}  // namespace

uint64_t parent_open_files() {
  rlimit64 limit{};
  if (prlimit64(getppid(), RLIMIT_NOFILE, nullptr, &limit) != 0 || limit.rlim_cur == RLIM64_INFINITY)
    return 0;
  return limit.rlim_cur;
}

UniqueFd launch(const protocol::LaunchPlan& plan, const LaunchFiles& files) {
  const UniqueFd plan_fd = plan_file(plan);
  const UniqueFd listener = bound_listener(files.socket_path);
  int pair[2];
  check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), "socketpair",
        "making a control connection");
  UniqueFd ours(pair[0]), theirs(pair[1]);

  // Sources above the numbers they are moved to, so that no dup2 destroys another's source.
  const int sources[] = {files.stdio[0], files.stdio[1], files.stdio[2],
                         plan_fd.get(),  theirs.get(),   listener.get()};
  UniqueFd moved[6];
  for (int i = 0; i < 6; ++i) {
    moved[i].reset(fcntl(sources[i], F_DUPFD_CLOEXEC, kAbove));
    if (!moved[i]) throw OsError("fcntl", errno, "passing descriptors to virt-init");
  }
  // init's end must not block; the flag is shared by all dups of it.
  fcntl(theirs.get(), F_SETFL, O_NONBLOCK);

  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  posix_spawn_file_actions_init(&actions);
  posix_spawnattr_init(&attributes);
  const ScopeExit destroy([&] {
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
  });
  for (int i = 0; i < 6; ++i) posix_spawn_file_actions_adddup2(&actions, moved[i].get(), i);
  sigset_t none, all;
  sigemptyset(&none);
  sigfillset(&all);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setsigdefault(&attributes, &all);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  const std::string numbers[] = {std::to_string(kFirstPassed), std::to_string(kFirstPassed + 1),
                                 std::to_string(kFirstPassed + 2)};
  const char* argv[] = {"virt-init", numbers[0].c_str(), numbers[1].c_str(), numbers[2].c_str(), nullptr};
  const char* env[] = {nullptr};
  pid_t pid = 0;
  const int error = posix_spawn(&pid, files.init_program.c_str(), &actions, &attributes,
                                const_cast<char**>(argv), const_cast<char**>(env));
  if (error != 0) {
    unlink(files.socket_path.c_str());
    throw OsError("ERR_LAUNCH", "posix_spawn", error, "starting virt-init").at_path(files.init_program);
  }
  // It forks PID 1 and ends.
  int status = 0;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  return ours;
}

}  // namespace virt
