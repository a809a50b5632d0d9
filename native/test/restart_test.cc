// arch/restart: what becomes of a system call that a stop has interrupted.
#include "arch/restart.h"

#include <doctest/doctest.h>
#include <sys/syscall.h>

#include <cerrno>
#include <cstring>
#include <initializer_list>

#include "arch/agent.h"

using namespace virt;

namespace {

constexpr uint64_t kNotInCall = ~0ULL;

user_regs_struct stopped(uint64_t call, int64_t result) {
  user_regs_struct r{};
  r.orig_rax = call;
  r.rax = static_cast<uint64_t>(result);
  r.rip = 0x401002;
  r.rdi = 11;
  r.rsi = 22;
  r.rdx = 33;
  r.r10 = 44;
  return r;
}

bool same(const user_regs_struct& a, const user_regs_struct& b) { return std::memcmp(&a, &b, sizeof a) == 0; }

}  // namespace

TEST_CASE("waits that a stop makes fail are told to go on, whatever else fails stays so") {
  for (const uint64_t call :
       {SYS_epoll_wait, SYS_epoll_pwait, SYS_semop, SYS_semtimedop, SYS_rt_sigtimedwait, SYS_io_getevents,
        SYS_accept4, SYS_recvfrom, SYS_recvmsg, SYS_sendto, SYS_connect}) {
    CAPTURE(call);
    user_regs_struct expected = stopped(call, -EINTR);
    expected.rax = static_cast<uint64_t>(kERestartNoHand);
    CHECK(same(hide_interruption(stopped(call, -EINTR)), expected));
    for (const int64_t result : {int64_t{0}, int64_t{5}, int64_t{-EAGAIN}, kERestartSys, kERestartBlock}) {
      CHECK(same(hide_interruption(stopped(call, result)), stopped(call, result)));
    }
  }
  // A close(2) that says EINTR has closed: doing it again would close another's.
  CHECK(same(hide_interruption(stopped(SYS_close, -EINTR)), stopped(SYS_close, -EINTR)));
  // Running code whose rax happens to look like an error.
  CHECK(same(hide_interruption(stopped(kNotInCall, -EINTR)), stopped(kNotInCall, -EINTR)));
}

TEST_CASE("without the kernel's memory of it a timed wait starts again, a sleep with what remains") {
  for (const uint64_t call : {SYS_poll, SYS_futex, SYS_nanosleep, SYS_clock_nanosleep}) {
    const auto r = without_restart_block(stopped(call, kERestartBlock));
    CHECK(static_cast<int64_t>(r.rax) == kERestartNoHand);
    CHECK(r.orig_rax == call);
    CHECK(r.rdi == (call == SYS_nanosleep ? 22 : 11));
    CHECK(r.rdx == (call == SYS_clock_nanosleep ? 44 : 33));
  }
  // Whoever does not ask what remains sleeps anew.
  auto forgetful = stopped(SYS_nanosleep, kERestartBlock);
  forgetful.rsi = 0;
  CHECK(without_restart_block(forgetful).rdi == 11);
  forgetful = stopped(SYS_clock_nanosleep, kERestartBlock);
  forgetful.r10 = 0;
  CHECK(without_restart_block(forgetful).rdx == 33);
  for (const int64_t result : {int64_t{0}, int64_t{-EINTR}, kERestartSys, kERestartNoHand})
    CHECK(same(without_restart_block(stopped(SYS_nanosleep, result)), stopped(SYS_nanosleep, result)));
  CHECK(
      same(without_restart_block(stopped(kNotInCall, kERestartBlock)), stopped(kNotInCall, kERestartBlock)));
}

TEST_CASE("restarted by hand: back on the instruction, with the call's number") {
  for (const int64_t result : {kERestartSys, kERestartNoIntr, kERestartNoHand}) {
    const auto r = restarted(stopped(SYS_read, result));
    CHECK(r.rip == 0x401000);
    CHECK(r.rax == SYS_read);
    CHECK(r.orig_rax == kNotInCall);
    CHECK(r.rdi == 11);
  }
  const auto block = restarted(stopped(SYS_futex, kERestartBlock));
  CHECK(block.rip == 0x401000);
  CHECK(block.rax == SYS_restart_syscall);
  for (const int64_t result : {int64_t{0}, int64_t{-EINTR}, int64_t{-ENOENT}, int64_t{4096}}) {
    const auto r = restarted(stopped(SYS_read, result));
    CHECK(r.rip == 0x401002);
    CHECK(static_cast<int64_t>(r.rax) == result);
    CHECK(r.orig_rax == kNotInCall);
  }
  CHECK(same(restarted(stopped(kNotInCall, kERestartSys)), stopped(kNotInCall, kERestartSys)));
}

TEST_CASE("home in a header is where the registers were") {
  user_regs_struct r{};
  auto* words = reinterpret_cast<unsigned long long*>(&r);
  for (size_t i = 0; i < sizeof r / 8; ++i) words[i] = 0x1000 + i;
  r.orig_rax = kNotInCall;
  AgentHeader h;
  h.set_home(r, 0xabcd);
  CHECK(h.mask == 0xabcd);
  CHECK(h.r15 == r.r15);
  CHECK(h.r14 == r.r14);
  CHECK(h.r13 == r.r13);
  CHECK(h.r12 == r.r12);
  CHECK(h.rbp == r.rbp);
  CHECK(h.rbx == r.rbx);
  CHECK(h.r11 == r.r11);
  CHECK(h.r10 == r.r10);
  CHECK(h.r9 == r.r9);
  CHECK(h.r8 == r.r8);
  CHECK(h.rax == r.rax);
  CHECK(h.rcx == r.rcx);
  CHECK(h.rdx == r.rdx);
  CHECK(h.rsi == r.rsi);
  CHECK(h.rdi == r.rdi);
  CHECK(h.rip == r.rip);
  CHECK(h.rflags == r.eflags);
  CHECK(h.rsp == r.rsp);
}
