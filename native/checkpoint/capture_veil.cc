// Processes that may not be dumped (prctl(2), PR_SET_DUMPABLE): lifted while they are captured, and put back.
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

#include "base/error.h"
#include "checkpoint/capture.h"
#include "checkpoint/foothold.h"
#include "checkpoint/process_state.h"
#include "sys/file.h"

namespace virt {

// The kernel gives the files of an undumpable process in /proc to root, whoever may trace it (proc(5)): the process
// itself lifts that for as long as it is captured.
void Capture::unveil() {
  for (FrozenProcess& p : pod_.processes) {
    if (p.zombie || access((p.dir() + "/fd").c_str(), R_OK | X_OK) == 0 || errno != EACCES) continue;
    const auto status = try_read_status(p.dir());
    if (!status)
      throw OsError("ERR_PROCESS_GONE", "open", ESRCH, "a process was killed meanwhile").in_process(p.pid);
    const bool filtered =
        has_own_filter(*status);  // a blocker of its own; and the filter might kill it for our call
    p.closed = filtered || !make_dumpable(p);
    if (!p.closed || filtered) continue;
    Blocker b;
    b.code = "ERR_UNSUPPORTED";
    b.reason =
        "a process whose program file may not be read, or that may be dumped by root alone: " + p.stat.comm;
    b.hint = "run the pod as root";
    b.pid = p.pid;
    b.kind = "process";
    context_->block(std::move(b));
  }
}

bool Capture::make_dumpable(FrozenProcess& p) {
  VdsoCell cell(p, parse_smaps(read_file(p.dir() + "/maps", size_t{256} << 20)));
  // 2 (suid_dumpable(5)) cannot be given back by prctl(2).
  if (cell.call(SYS_prctl, PR_GET_DUMPABLE) != 0) return false;
  unveiled_.push_back(&p);
  return cell.call(SYS_prctl, PR_SET_DUMPABLE, 1) == 0;
}

// Before the program goes on.
void Capture::veil() noexcept {
  for (FrozenProcess* p : unveiled_) {
    try {
      VdsoCell(*p, parse_smaps(read_file(p->dir() + "/maps", size_t{256} << 20)))
          .call(SYS_prctl, PR_SET_DUMPABLE, 0);
    } catch (const std::exception&) {
      // It was killed: there is nothing left to hide.
    }
  }
  unveiled_.clear();
}

}  // namespace virt
