// The agent: the only code of ours that ever runs inside a program (DESIGN, remote system calls in batches).
// It makes a table of system calls one after the other, tells the tracer with a signal, and otherwise goes
// home by itself: it puts back the signal mask and every register and returns to the program.
//
// The end mark is a signal the thread sends itself. A tracer sees it even if the program ignores it
// (ptrace(2), signal-delivery-stop) and swallows it; without a tracer the program ignores it and the agent
// goes home. So a thread whose tracer was killed in mid-batch harms nobody. rt_sigreturn would do the same
// but would turn a restartable call into EINTR (the kernel's restart_block is cleared), and would need the
// whole xstate in memory; the agent touches no vector register, so loading the general ones and `iretq` is
// enough.
#pragma once

#include <sys/user.h>

#include <cstddef>
#include <cstdint>

namespace virt {

// One system call. The fields are read and written by agent.S at these offsets.
struct AgentCall {
  uint32_t number = 0;
  uint8_t substitute = 0;  // 1..6: that argument is replaced by the result of call `source`
  uint8_t flags = 0;
  uint16_t source = 0;
  uint64_t args[6] = {};
  int64_t result = 0;
};
static_assert(sizeof(AgentCall) == 64);

inline constexpr uint8_t kAgentNoStore = 1;      // the table is read-only: leave the result in rbp alone
inline constexpr uint8_t kAgentStopOnError = 2;  // a negative errno ends the batch

// Where home is, and how the end is marked. One per thread that is away.
struct AgentHeader {
  uint64_t tgid = 0, tid = 0, mark = 0;  // as the thread itself sees them
  uint64_t mask = 0;                     // signal mask at home
  uint64_t commit = 0;                   // address of the word a parked thread waits for; 0 if none
  uint64_t r15 = 0, r14 = 0, r13 = 0, r12 = 0, rbp = 0, r11 = 0, r10 = 0, r9 = 0, r8 = 0;
  uint64_t rax = 0, rcx = 0, rdx = 0, rsi = 0, rdi = 0, rbx = 0;
  uint64_t rip = 0, cs = 0, rflags = 0, rsp = 0, ss = 0;

  void set_home(const user_regs_struct& regs, uint64_t signal_mask);
};
static_assert(sizeof(AgentHeader) == 200);

// The code, position-independent, and two offsets in it: of the way home, where a thread is when it has sent
// the mark, and of the loop in which a rebuilt thread waits until its pod is complete (`commit` becomes
// non-zero) before it goes home.
const void* agent_code();
size_t agent_code_size();
size_t agent_home_offset();
size_t agent_park_offset();

// Registers that make a stopped thread run `count` calls at `calls`, or park. All addresses are the thread's.
// The stack pointer stays what it is: a handler that runs there runs where it would have run at home.
user_regs_struct agent_run_registers(const user_regs_struct& now, uint64_t code, uint64_t header,
                                     uint64_t calls, size_t count);
user_regs_struct agent_park_registers(const user_regs_struct& now, uint64_t code, uint64_t header);

}  // namespace virt
