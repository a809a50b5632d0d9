// Interrupted system calls: what the kernel would do with them, and how to say it in registers (signal(7),
// "Interruption of system calls"; ERESTART* in the kernel's linux/errno.h never reach a program).
//
// A stop leaves -ERESTARTxxx in rax with the call's number in orig_rax. As long as the thread is let go
// through the kernel's own exit path (PTRACE_DETACH) the kernel restarts the call or makes it EINTR by its
// own rules.
#pragma once

#include <sys/user.h>

#include <cstdint>

namespace virt {

inline constexpr int64_t kERestartSys = -512, kERestartNoIntr = -513, kERestartNoHand = -514,
                         kERestartBlock = -516;

// True if the thread was stopped on its way out of a system call.
bool in_system_call(const user_regs_struct& regs);

// A stop makes some waits fail with EINTR although no signal came (epoll_wait, semop, sigtimedwait, socket
// calls with a timeout: signal(7)). Gives them the code that makes the kernel restart them unless a handler
// runs, so that the program does not notice the stop. Only for a thread stopped by PTRACE_INTERRUPT at its
// signal check.
user_regs_struct hide_interruption(const user_regs_struct& regs);

// For a thread that is made anew: its kernel does not remember the restart_block of the old one. A relative
// sleep that knows what remains (nanosleep's second argument) goes on with the remainder; every other timed
// wait starts its time again.
user_regs_struct without_restart_block(const user_regs_struct& regs);

// The same state for a thread that gets no help from the kernel: the instruction pointer back on the syscall
// instruction where the call would be restarted.
user_regs_struct restarted(const user_regs_struct& regs);

}  // namespace virt
