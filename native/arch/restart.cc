#include "arch/restart.h"

#include <linux/futex.h>
#include <sys/syscall.h>

#include <cerrno>

namespace virt {
namespace {

constexpr uint64_t kSyscallInstructionBytes = 2;

int64_t result_of(const user_regs_struct& regs) { return static_cast<int64_t>(regs.rax); }

bool waits_fail_with_eintr(uint64_t call) {
  switch (call) {
    case SYS_epoll_wait:
    case SYS_epoll_pwait:
    case SYS_epoll_pwait2:
    case SYS_rt_sigtimedwait:
    case SYS_semop:
    case SYS_semtimedop:
    case SYS_io_getevents:
    case SYS_io_pgetevents:
    case SYS_accept:
    case SYS_accept4:
    case SYS_recvfrom:
    case SYS_recvmsg:
    case SYS_recvmmsg:
    case SYS_sendto:
    case SYS_sendmsg:
    case SYS_sendmmsg:
    case SYS_connect:
    case SYS_read:
    case SYS_readv:
    case SYS_write:
    case SYS_writev:
    case SYS_mq_timedreceive:
    case SYS_mq_timedsend:
      return true;
    default:
      return false;
  }
}

}  // namespace

bool in_system_call(const user_regs_struct& regs) { return static_cast<int64_t>(regs.orig_rax) >= 0; }

user_regs_struct hide_interruption(const user_regs_struct& regs) {
  user_regs_struct out = regs;
  if (in_system_call(regs) && result_of(regs) == -EINTR && waits_fail_with_eintr(regs.orig_rax)) {
    out.rax = static_cast<uint64_t>(kERestartNoHand);
  }
  return out;
}

user_regs_struct without_restart_block(const user_regs_struct& regs) {
  user_regs_struct out = regs;
  if (!in_system_call(regs) || result_of(regs) != kERestartBlock) return out;
  out.rax = static_cast<uint64_t>(kERestartNoHand);
  // The kernel wrote the remainder where the second argument points before it gave ERESTART_RESTARTBLOCK
  // (nanosleep(2)); sleeping that long is what the restart block would have done.
  if (regs.orig_rax == SYS_nanosleep && regs.rsi != 0) out.rdi = regs.rsi;
  if (regs.orig_rax == SYS_clock_nanosleep && regs.r10 != 0) out.rdx = regs.r10;
  return out;
}

user_regs_struct restarted(const user_regs_struct& regs) {
  user_regs_struct out = regs;
  if (!in_system_call(regs)) return out;
  switch (result_of(regs)) {
    case kERestartSys:
    case kERestartNoIntr:
    case kERestartNoHand:
      out.rax = regs.orig_rax;
      out.rip -= kSyscallInstructionBytes;
      break;
    case kERestartBlock:
      out.rax = SYS_restart_syscall;
      out.rip -= kSyscallInstructionBytes;
      break;
    default:
      break;
  }
  out.orig_rax = ~0ULL;
  return out;
}

}  // namespace virt
