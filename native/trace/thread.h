// One thread of a pod while it is stopped by ptrace(2). Every method needs it stopped and must be called on
// the thread that seized it (ptrace requests are bound to the tracing thread). Letting go of the object lets
// the thread go on; if our own thread dies first, the kernel does that.
//
// Addresses in the other process are RemoteAddress: another type than our own pointers on purpose.
#pragma once

#include <signal.h>
#include <sys/types.h>
#include <sys/user.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace virt {

using RemoteAddress = uint64_t;

// Signals are 1 … 64, and bit n - 1 of a mask.
inline constexpr int kLastSignal = 64;
constexpr uint64_t signal_bit(int signal) { return uint64_t{1} << (signal - 1); }

// Why a seized thread stopped.
enum class StopKind {
  interrupted,    // by PTRACE_INTERRUPT, or a new thread's first stop
  group_stopped,  // the program is stopped by a job-control signal
  signal,         // a signal is about to be delivered
  event,          // fork, clone, exec, exit: PTRACE_EVENT_*
};

struct Stop {
  StopKind kind = StopKind::interrupted;
  int signal = 0;
  int event = 0;
};

// A signal that was queued, as the kernel keeps it.
using RawSiginfo = siginfo_t;

class Thread {
 public:
  // PTRACE_SEIZE; nothing if it is gone. It keeps running until interrupt() and await_stop().
  static std::optional<Thread> try_seize(pid_t host_tid, unsigned long options);
  // A thread the kernel attached for us (PTRACE_O_TRACECLONE and the like).
  static Thread adopted(pid_t host_tid) { return Thread(host_tid); }

  Thread(Thread&& other) noexcept;
  Thread& operator=(Thread&& other) noexcept;
  Thread(const Thread&) = delete;
  Thread& operator=(const Thread&) = delete;
  ~Thread();

  [[nodiscard]] pid_t host_tid() const { return tid_; }
  [[nodiscard]] bool stopped() const { return stopped_; }

  void interrupt();
  // Waits for the next stop; nothing if the thread ended instead, or (with `deadline_ms`) did not stop in
  // time: then alive() still says true.
  std::optional<Stop> await_stop(int deadline_ms = -1);
  [[nodiscard]] bool alive() const { return tid_ > 0; }

  void resume(int signal = 0);  // PTRACE_CONT
  void step();                  // PTRACE_SINGLESTEP: one instruction, then a stop with SIGTRAP
  void detach();                // the thread goes on from where its registers say

  [[nodiscard]] user_regs_struct registers() const;
  void set_registers(const user_regs_struct& regs);
  // NT_X86_XSTATE: the whole vector and extended state in the standard (not compacted) xsave layout.
  [[nodiscard]] std::string xstate() const;
  void set_xstate(const std::string& state);
  [[nodiscard]] uint64_t signal_mask() const;
  void set_signal_mask(uint64_t mask);
  [[nodiscard]] siginfo_t signal_info() const;
  void set_signal_info(const siginfo_t& info);
  // The signal it is about to take will be nobody's if we die: it was sent by us.
  void withdraw_signal();
  [[nodiscard]] unsigned long event_message() const;
  // Signals waiting for this thread (false) or its whole process (true), oldest first.
  [[nodiscard]] std::vector<RawSiginfo> pending_signals(bool of_process) const;

  struct RseqConfiguration {
    uint64_t address = 0;
    uint32_t size = 0, signature = 0, flags = 0;
  };
  [[nodiscard]] std::optional<RseqConfiguration> rseq() const;

  // Writes over any protection, as a debugger's breakpoint does (PTRACE_POKEDATA): whole 8-byte words.
  void poke(RemoteAddress to, const void* data, size_t size);
  [[nodiscard]] std::string peek(RemoteAddress from, size_t size) const;

 private:
  explicit Thread(pid_t tid) : tid_(tid) {}
  pid_t tid_ = -1;
  bool stopped_ = false;
};

}  // namespace virt
