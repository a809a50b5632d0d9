#include "arch/agent.h"

#include "arch/restart.h"

extern "C" {
extern const char virt_agent_begin[];
extern const char virt_agent_end[];
extern const char virt_agent_home[];
extern const char virt_agent_park[];
}

namespace virt {
namespace {

constexpr uint64_t kUserCs = 0x33, kUserSs = 0x2b;
constexpr uint64_t kFlagsAlwaysOne = 0x2, kFlagsInterrupts = 0x200;

}  // namespace

const void* agent_code() { return virt_agent_begin; }
size_t agent_code_size() { return static_cast<size_t>(virt_agent_end - virt_agent_begin); }
size_t agent_home_offset() { return static_cast<size_t>(virt_agent_home - virt_agent_begin); }
size_t agent_park_offset() { return static_cast<size_t>(virt_agent_park - virt_agent_begin); }

void AgentHeader::set_home(const user_regs_struct& regs, uint64_t signal_mask) {
  const user_regs_struct home = restarted(regs);
  mask = signal_mask;
  r15 = home.r15;
  r14 = home.r14;
  r13 = home.r13;
  r12 = home.r12;
  rbp = home.rbp;
  rbx = home.rbx;
  r11 = home.r11;
  r10 = home.r10;
  r9 = home.r9;
  r8 = home.r8;
  rax = home.rax;
  rcx = home.rcx;
  rdx = home.rdx;
  rsi = home.rsi;
  rdi = home.rdi;
  rip = home.rip;
  cs = kUserCs;
  rflags = home.eflags;
  rsp = home.rsp;
  ss = kUserSs;
}

user_regs_struct agent_run_registers(const user_regs_struct& now, uint64_t code, uint64_t header,
                                     uint64_t calls, size_t count) {
  user_regs_struct regs = now;
  regs.rip = code;
  regs.rbx = header;
  regs.r12 = calls;
  regs.r13 = calls + count * sizeof(AgentCall);
  regs.r14 = calls;
  regs.eflags = kFlagsAlwaysOne | kFlagsInterrupts;
  regs.cs = kUserCs;
  regs.ss = kUserSs;
  regs.orig_rax = ~0ULL;  // not in a system call: nothing to restart
  return regs;
}

user_regs_struct agent_park_registers(const user_regs_struct& now, uint64_t code, uint64_t header) {
  user_regs_struct regs = agent_run_registers(now, code, header, 0, 0);
  regs.rip = code + agent_park_offset();
  return regs;
}

}  // namespace virt
