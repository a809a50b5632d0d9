#include "trace/thread.h"

#include <elf.h>
#include <sched.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include <cerrno>
#include <cstring>
#include <ctime>
#include <utility>

#include "base/error.h"

namespace virt {
namespace {

// linux/ptrace.h clashes with sys/ptrace.h; the request glibc 2.36 lacks, by number.
constexpr int kGetRseqConfiguration = 0x420f;
constexpr size_t kMostXstateBytes = 64 << 10;  // AMX makes it 11 KiB; room for what comes

long request(int what, pid_t tid, uintptr_t address, uintptr_t data) {
  return ptrace(static_cast<__ptrace_request>(what), tid, address, data);  // NOLINT
}

void must(long result, const char* doing, pid_t tid) {
  if (result == -1) throw OsError("ptrace", errno, doing).in_process(tid);
}

double now_ms() {
  timespec t{};
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<double>(t.tv_sec) * 1e3 + static_cast<double>(t.tv_nsec) / 1e6;
}

// waitpid(2) for a thread of ours, but for one thing: a signal that a thread is about to take stays noted as
// its exit_code until we resume it with that signal. wait4(2) would clear it (wait_task_stopped() in the
// kernel), and if we are killed before we resume the thread, nobody would deliver the signal: the program
// would have lost it. SIGTRAP is what our own single steps end with; that one must not reach the program
// without us.
pid_t wait_for(pid_t tid, int* status, int options) {
  siginfo_t info{};
  if (waitid(P_PID, static_cast<id_t>(tid), &info, options | WEXITED | WSTOPPED | WNOWAIT) != 0) return -1;
  if (info.si_pid == 0) return 0;
  const bool takes_signal =
      info.si_code == CLD_TRAPPED && info.si_status >> 8 == 0 && info.si_status != SIGTRAP;
  if (!takes_signal) return waitpid(tid, status, options);
  *status = info.si_status << 8 | 0x7f;
  return tid;
}

}  // namespace

std::optional<Thread> Thread::try_seize(pid_t host_tid, unsigned long options) {
  if (request(PTRACE_SEIZE, host_tid, 0, options) == -1) {
    if (errno == ESRCH) return std::nullopt;
    throw OsError("ptrace", errno, "seizing a thread").in_process(host_tid);
  }
  return Thread(host_tid);
}

Thread::Thread(Thread&& other) noexcept
    : tid_(std::exchange(other.tid_, -1)), stopped_(std::exchange(other.stopped_, false)) {}

Thread& Thread::operator=(Thread&& other) noexcept {
  if (this != &other) {
    if (alive()) detach();
    tid_ = std::exchange(other.tid_, -1);
    stopped_ = std::exchange(other.stopped_, false);
  }
  return *this;
}

Thread::~Thread() {
  if (alive()) detach();
}

void Thread::interrupt() {
  // ESRCH: it ended; await_stop finds out.
  if (request(PTRACE_INTERRUPT, tid_, 0, 0) == -1 && errno != ESRCH) {
    throw OsError("ptrace", errno, "interrupting a thread").in_process(tid_);
  }
}

std::optional<Stop> Thread::await_stop(int deadline_ms) {
  constexpr double kEagerMs = 0.05;
  const double begin = now_ms(), end = begin + deadline_ms;
  long pause_ns = 5'000;
  int status = 0;
  for (;;) {
    const pid_t got = wait_for(tid_, &status, __WALL | __WNOTHREAD | (deadline_ms >= 0 ? WNOHANG : 0));
    if (got == tid_) break;
    if (got == 0) {
      const double now = now_ms();
      if (now > end) return std::nullopt;
      // Most stop within microseconds, and the shortest nap is many times that (PR_SET_TIMERSLACK).
      if (now - begin < kEagerMs) {
        sched_yield();
        continue;
      }
      const timespec nap{0, pause_ns};
      nanosleep(&nap, nullptr);
      if (pause_ns < 1'000'000) pause_ns *= 2;
      continue;
    }
    if (errno == EINTR) continue;
    tid_ = -1;  // ECHILD: not ours any more
    return std::nullopt;
  }
  if (!WIFSTOPPED(status)) {
    tid_ = -1;
    return std::nullopt;
  }
  stopped_ = true;
  Stop stop;
  stop.signal = WSTOPSIG(status);
  stop.event = status >> 16;
  if (stop.event == PTRACE_EVENT_STOP) {
    stop.kind = stop.signal == SIGTRAP ? StopKind::interrupted : StopKind::group_stopped;
  } else if (stop.event != 0) {
    stop.kind = StopKind::event;
  } else {
    stop.kind = StopKind::signal;
  }
  return stop;
}

void Thread::resume(int signal) {
  must(request(PTRACE_CONT, tid_, 0, static_cast<uintptr_t>(signal)), "resuming a thread", tid_);
  stopped_ = false;
}

void Thread::step() {
  must(request(PTRACE_SINGLESTEP, tid_, 0, 0), "stepping a thread", tid_);
  stopped_ = false;
}

void Thread::detach() {
  if (stopped_) {
    // ESRCH: killed meanwhile. Nothing else can be done here, and destructors call this.
    request(PTRACE_DETACH, tid_, 0, 0);
  } else {
    // A running thread cannot be detached: stop it first.
    int status = 0;
    if (request(PTRACE_INTERRUPT, tid_, 0, 0) == 0 && wait_for(tid_, &status, __WALL | __WNOTHREAD) == tid_ &&
        WIFSTOPPED(status)) {
      const int event = status >> 16;
      request(PTRACE_DETACH, tid_, 0, event == 0 ? static_cast<uintptr_t>(WSTOPSIG(status)) : 0);
    }
  }
  tid_ = -1;
  stopped_ = false;
}

user_regs_struct Thread::registers() const {
  user_regs_struct regs{};
  iovec iov{&regs, sizeof regs};
  must(request(PTRACE_GETREGSET, tid_, NT_PRSTATUS, reinterpret_cast<uintptr_t>(&iov)), "reading registers",
       tid_);
  // A 32-bit program's set is shorter: such a program is a different machine to us.
  if (iov.iov_len != sizeof regs) {
    throw OsError("ERR_32BIT", "ptrace", 0, "a 32-bit program cannot be carried").in_process(tid_);
  }
  return regs;
}

void Thread::set_registers(const user_regs_struct& regs) {
  iovec iov{const_cast<user_regs_struct*>(&regs), sizeof regs};
  must(request(PTRACE_SETREGSET, tid_, NT_PRSTATUS, reinterpret_cast<uintptr_t>(&iov)), "writing registers",
       tid_);
}

std::string Thread::xstate() const {
  std::string state(kMostXstateBytes, '\0');
  iovec iov{state.data(), state.size()};
  must(request(PTRACE_GETREGSET, tid_, NT_X86_XSTATE, reinterpret_cast<uintptr_t>(&iov)),
       "reading the vector state", tid_);
  state.resize(iov.iov_len);
  return state;
}

void Thread::set_xstate(const std::string& state) {
  iovec iov{const_cast<char*>(state.data()), state.size()};
  must(request(PTRACE_SETREGSET, tid_, NT_X86_XSTATE, reinterpret_cast<uintptr_t>(&iov)),
       "writing the vector state", tid_);
}

uint64_t Thread::signal_mask() const {
  uint64_t mask = 0;
  must(request(PTRACE_GETSIGMASK, tid_, sizeof mask, reinterpret_cast<uintptr_t>(&mask)),
       "reading the signal mask", tid_);
  return mask;
}

void Thread::set_signal_mask(uint64_t mask) {
  must(request(PTRACE_SETSIGMASK, tid_, sizeof mask, reinterpret_cast<uintptr_t>(&mask)),
       "writing the signal mask", tid_);
}

siginfo_t Thread::signal_info() const {
  siginfo_t info{};
  must(request(PTRACE_GETSIGINFO, tid_, 0, reinterpret_cast<uintptr_t>(&info)), "reading a signal", tid_);
  return info;
}

void Thread::set_signal_info(const siginfo_t& info) {
  must(request(PTRACE_SETSIGINFO, tid_, 0, reinterpret_cast<uintptr_t>(&info)), "changing a signal", tid_);
}

void Thread::withdraw_signal() {
  int status = 0;
  waitpid(tid_, &status, __WALL | __WNOTHREAD | WNOHANG);
}

unsigned long Thread::event_message() const {
  unsigned long message = 0;
  must(request(PTRACE_GETEVENTMSG, tid_, 0, reinterpret_cast<uintptr_t>(&message)), "reading an event", tid_);
  return message;
}

std::vector<RawSiginfo> Thread::pending_signals(bool of_process) const {
  std::vector<RawSiginfo> all;
  for (;;) {
    __ptrace_peeksiginfo_args args{};
    args.off = all.size();
    args.flags = of_process ? PTRACE_PEEKSIGINFO_SHARED : 0;
    args.nr = 32;
    RawSiginfo batch[32];
    const long n = request(PTRACE_PEEKSIGINFO, tid_, reinterpret_cast<uintptr_t>(&args),
                           reinterpret_cast<uintptr_t>(batch));
    must(n, "reading pending signals", tid_);
    if (n == 0) return all;
    all.insert(all.end(), batch, batch + n);
  }
}

std::optional<Thread::RseqConfiguration> Thread::rseq() const {
  struct {
    uint64_t address;
    uint32_t size, signature, flags, pad;
  } raw{};
  if (request(kGetRseqConfiguration, tid_, sizeof raw, reinterpret_cast<uintptr_t>(&raw)) == -1) {
    if (errno == EIO || errno == EINVAL) return std::nullopt;  // a kernel without CONFIG_RSEQ
    throw OsError("ptrace", errno, "reading the rseq area").in_process(tid_);
  }
  if (raw.address == 0) return std::nullopt;
  return RseqConfiguration{raw.address, raw.size, raw.signature, raw.flags};
}

void Thread::poke(RemoteAddress to, const void* data, size_t size) {
  if (to % 8 != 0 || size % 8 != 0) throw Bug("poke: not whole words");
  for (size_t i = 0; i < size; i += 8) {
    uint64_t word;
    std::memcpy(&word, static_cast<const char*>(data) + i, 8);
    must(request(PTRACE_POKEDATA, tid_, to + i, word), "writing a word", tid_);
  }
}

std::string Thread::peek(RemoteAddress from, size_t size) const {
  if (size % 8 != 0) throw Bug("peek: not whole words");
  std::string data(size, '\0');
  for (size_t i = 0; i < size; i += 8) {
    // glibc's ptrace() returns the word itself for PEEK requests: errno tells failure.
    errno = 0;
    const long word = request(PTRACE_PEEKDATA, tid_, from + i, 0);
    if (word == -1 && errno != 0) throw OsError("ptrace", errno, "reading a word").in_process(tid_);
    std::memcpy(data.data() + i, &word, 8);
  }
  return data;
}

}  // namespace virt
