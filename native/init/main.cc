// virt-init: PID 1 of every pod. Usage: virt-init PLAN_FD CONTROL_FD LISTENER_FD, started by the SDK and by
// nobody else. It makes the pod's namespaces, then forks; the parent says the child's pid and exits, the
// child is PID 1 inside and stays as long as the pod lives.

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <utility>

#include "init/keeper.h"
#include "init/namespaces.h"
#include "init/seed.h"
#include "sys/fd.h"
#include "sys/message.h"

namespace virt::init {
namespace {

constexpr size_t kMostPlanBytes = protocol::kMostFrameBytes;

// Events from before there is a keeper.
void tell(int control, protocol::Type type, const std::string& payload) {
  protocol::FrameHeader h;
  h.size = static_cast<uint32_t>(payload.size());
  h.type = static_cast<uint16_t>(type);
  std::string bytes(reinterpret_cast<const char*>(&h), sizeof h);
  bytes += payload;
  send_with_fds(control, bytes.data(), bytes.size(), nullptr, 0);
}

int tell_failure(int control, const Step& step) {
  protocol::Writer w;
  w.number(static_cast<int32_t>(step.error));
  w.text(step.what);
  tell(control, protocol::Type::kFailed, w.bytes());
  return 1;
}

bool read_plan(int fd, protocol::LaunchPlan* plan) {
  struct stat st {};
  if (fstat(fd, &st) != 0 || st.st_size <= 0 || static_cast<size_t>(st.st_size) > kMostPlanBytes)
    return false;
  std::string bytes(static_cast<size_t>(st.st_size), '\0');
  return pread(fd, bytes.data(), bytes.size(), 0) == static_cast<ssize_t>(bytes.size()) &&
         decode(bytes, plan);
}

int run(int plan_fd, int control, int listener) {
  protocol::LaunchPlan plan;
  if (!read_plan(plan_fd, &plan)) return tell_failure(control, {EINVAL, "reading the launch plan"});
  close(plan_fd);

  UniqueFd state_dir(open(plan.state_dir.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!state_dir) return tell_failure(control, failed("opening the pod's state directory"));
  // The socket's directory as the host shows it: the pod's view of it may be remapped or hidden.
  const size_t slash = plan.socket_path.rfind('/');
  UniqueFd socket_dir(open(plan.socket_path.substr(0, slash).c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  const std::string socket_name = plan.socket_path.substr(slash + 1);
  // Likewise our own file, which a rebuild executes again.
  UniqueFd own_program;
  if ((plan.flags & protocol::kPlanRebuild) != 0)
    own_program.reset(open("/proc/self/exe", O_PATH | O_CLOEXEC));
  UniqueFd host_proc(open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC));  // where the host's pids are told
  setsid();
  if (const Step s = enter_namespaces(plan); s.failed()) return tell_failure(control, s);

  const pid_t pid = fork();
  if (pid < 0) return tell_failure(control, failed("forking PID 1"));
  if (pid > 0) {
    protocol::Writer w;
    w.number(static_cast<uint32_t>(pid));
    tell(control, protocol::Type::kForked, w.bytes());
    return 0;
  }
  prctl(PR_SET_DUMPABLE, 1);
  prctl(PR_SET_NAME, "virt-init");
  (void)!chdir("/");  // no directory of the launcher is held
  // Never deleted: its thread answers until the process is gone, also for what is removed below.
  auto& interposer = *new Interposer;
  int code;
  std::unique_ptr<Holder> holder;
  if (const Step s = furnish(plan); s.failed()) {
    code = tell_failure(control, s);
  } else {
    Keeper keeper(std::move(plan), std::move(state_dir), UniqueFd(listener), UniqueFd(control),
                  UniqueFd(fcntl(socket_dir.get(), F_DUPFD_CLOEXEC, 0)), std::move(own_program),
                  std::move(host_proc), interposer);
    code = keeper.run();
    holder = keeper.take_holder();
  }
  unlinkat(socket_dir.get(), socket_name.c_str(), 0);
  remove_mount_points();
  if (holder) {
    prctl(PR_SET_NAME, "virt-hold");
    leave_mounts();
    holder->run();
  }
  return code;
}

}  // namespace
}  // namespace virt::init

int main(int argc, char** argv) {
  if (argc == 8 && std::strcmp(argv[1], virt::init::kSeedArgument) == 0)
    return virt::init::run_seed(argv + 2);
  if (argc != 4) {
    static const char kText[] = "virt-init is started by virt-run and does nothing by itself.\n";
    (void)!write(2, kText, sizeof kText - 1);
    return 125;
  }
  return virt::init::run(std::atoi(argv[1]), std::atoi(argv[2]), std::atoi(argv[3]));
}
