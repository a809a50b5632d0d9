#include "test/observer.h"

#include <sys/epoll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <ctime>
#include <thread>

namespace virt::test {
namespace {

// What spin() works on, at the offsets it knows.
struct alignas(16) SpinPlace {
  uint64_t left = 0;
  uint64_t stack = 0;
  uint64_t values[14] = {};
  uint64_t vectors[16][2] = {};
};
static_assert(sizeof(SpinPlace) == 384);

}  // namespace

// Keeps every general and vector register at the place's values for `left` rounds and compares them in each.
// 0, or the line of the first that changed.
extern "C" int virt_test_spin(SpinPlace* place);
asm(R"(
        .text
        .type virt_test_spin, @function
virt_test_spin:
        push %rbx
        push %rbp
        push %r12
        push %r13
        push %r14
        push %r15
        mov %rsp, 8(%rdi)
        mov 16(%rdi), %rax
        mov 24(%rdi), %rbx
        mov 32(%rdi), %rcx
        mov 40(%rdi), %rdx
        mov 48(%rdi), %rsi
        mov 56(%rdi), %rbp
        mov 64(%rdi), %r8
        mov 72(%rdi), %r9
        mov 80(%rdi), %r10
        mov 88(%rdi), %r11
        mov 96(%rdi), %r12
        mov 104(%rdi), %r13
        mov 112(%rdi), %r14
        mov 120(%rdi), %r15
        movaps 128(%rdi), %xmm0
        movaps 144(%rdi), %xmm1
        movaps 176(%rdi), %xmm3
        movaps 240(%rdi), %xmm7
        movaps 256(%rdi), %xmm8
        movaps 368(%rdi), %xmm15
1:      cmp 8(%rdi), %rsp
        jne 2f
        cmp 16(%rdi), %rax
        jne 2f
        cmp 24(%rdi), %rbx
        jne 2f
        cmp 32(%rdi), %rcx
        jne 2f
        cmp 40(%rdi), %rdx
        jne 2f
        cmp 48(%rdi), %rsi
        jne 2f
        cmp 56(%rdi), %rbp
        jne 2f
        cmp 64(%rdi), %r8
        jne 2f
        cmp 72(%rdi), %r9
        jne 2f
        cmp 80(%rdi), %r10
        jne 2f
        cmp 88(%rdi), %r11
        jne 2f
        cmp 96(%rdi), %r12
        jne 2f
        cmp 104(%rdi), %r13
        jne 2f
        cmp 112(%rdi), %r14
        jne 2f
        cmp 120(%rdi), %r15
        jne 2f
        decq (%rdi)
        jnz 1b
        pcmpeqb 128(%rdi), %xmm0
        pcmpeqb 144(%rdi), %xmm1
        pcmpeqb 176(%rdi), %xmm3
        pcmpeqb 240(%rdi), %xmm7
        pcmpeqb 256(%rdi), %xmm8
        pcmpeqb 368(%rdi), %xmm15
        pand %xmm1, %xmm0
        pand %xmm3, %xmm0
        pand %xmm7, %xmm0
        pand %xmm8, %xmm0
        pand %xmm15, %xmm0
        pmovmskb %xmm0, %eax
        xor $0xffff, %eax
        jmp 3f
2:      mov $1, %eax
3:      mov 8(%rdi), %rsp
        pop %r15
        pop %r14
        pop %r13
        pop %r12
        pop %rbp
        pop %rbx
        ret
        .size virt_test_spin, . - virt_test_spin
)");

namespace {

Observed* observed = nullptr;  // the signal handler's way to it

void wrong(int line, int64_t value) {
  int none = 0;
  if (observed->wrong_line.compare_exchange_strong(none, line)) observed->wrong_value = value;
}

const int kQueued = SIGRTMIN + 1;
constexpr int kBlocked = SIGUSR1;

// Signals arrive one by one, in the order in which they were queued.
void count_signal(int, siginfo_t* info, void*) {
  static int last = 0;
  if (info->si_value.sival_int != last + 1) wrong(__LINE__, info->si_value.sival_int - last);
  last = info->si_value.sival_int;
  ++observed->signals;
}

void spin_and_take_signals() {
  SpinPlace place;
  for (auto& v : place.values) v = 0x1234567887654321ULL * static_cast<uint64_t>(&v - place.values + 1);
  for (auto& v : place.vectors) {
    v[0] = 0xfedcba98ULL * static_cast<uint64_t>(&v - place.vectors + 3);
    v[1] = ~v[0];
  }
  sigset_t expected, now;
  pthread_sigmask(SIG_SETMASK, nullptr, &expected);
  observed->ready = true;
  for (;;) {
    place.left = 20'000;
    if (const int bad = virt_test_spin(&place); bad != 0) wrong(__LINE__, bad);
    pthread_sigmask(SIG_SETMASK, nullptr, &now);
    for (int s = 1; s <= SIGRTMAX; ++s) {
      if (sigismember(&now, s) != sigismember(&expected, s)) wrong(__LINE__, s);
    }
    ++observed->spins;
  }
}

// Queues signals to the first thread, never more than a few ahead of it.
void queue_signals() {
  for (uint64_t n = 1;; ++n) {
    while (n > observed->signals + 8) sleep_us(50);
    sigval value{};
    value.sival_int = static_cast<int>(n);
    if (sigqueue(getpid(), kQueued, value) != 0) wrong(__LINE__, errno);
    sleep_us(20);
  }
}

void nap() {
  for (;;) {
    const timespec t{0, 100'000};
    if (nanosleep(&t, nullptr) != 0) wrong(__LINE__, errno);
    ++observed->naps;
  }
}

// Calls that the kernel makes fail with EINTR for any stop (signal(7)).
void poll() {
  const int epoll = epoll_create1(0);
  sigset_t none;
  sigemptyset(&none);
  sigaddset(&none, kBlocked);
  for (;;) {
    epoll_event event{};
    const int n = epoll_wait(epoll, &event, 1, 1);
    if (n < 0 && errno == EINTR) {
      ++observed->interrupted;
    } else if (n != 0) {
      wrong(__LINE__, errno);
    }
    const timespec t{0, 100'000};
    if (sigtimedwait(&none, nullptr, &t) >= 0) wrong(__LINE__, 0);
    if (errno == EINTR) {
      ++observed->interrupted;
    } else if (errno != EAGAIN) {
      wrong(__LINE__, errno);
    }
    ++observed->polls;
  }
}

void write_pipe(int to) {
  for (uint8_t n = 0;; ++n) {
    if (write(to, &n, 1) != 1) wrong(__LINE__, errno);
    sleep_us(100);
  }
}

void read_pipe(int from) {
  for (uint8_t n = 0;; ++n) {
    uint8_t byte = 0;
    if (const ssize_t got = read(from, &byte, 1); got != 1) wrong(__LINE__, errno);
    if (byte != n) wrong(__LINE__, byte - n);
    ++observed->reads;
  }
}

int observe(Observed* place) {
  observed = place;
  struct sigaction action {};
  action.sa_sigaction = count_signal;
  action.sa_flags = SA_SIGINFO | SA_RESTART;
  sigaction(kQueued, &action, nullptr);
  sigset_t all, one;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, nullptr);  // as the other threads keep it
  int pipe_ends[2];
  if (pipe(pipe_ends) != 0) wrong(__LINE__, errno);
  std::jthread(queue_signals).detach();
  std::jthread(nap).detach();
  std::jthread(poll).detach();
  std::jthread([to = pipe_ends[1]] { write_pipe(to); }).detach();
  std::jthread([from = pipe_ends[0]] { read_pipe(from); }).detach();
  sigemptyset(&one);
  sigaddset(&one, kBlocked);
  pthread_sigmask(SIG_SETMASK, &one, nullptr);
  spin_and_take_signals();
  return 0;
}

}  // namespace

Observer::Observer() : child_([this] { return observe(&*seen_); }) {
  while (!seen_->ready) sleep_us(100);
}

std::string Observer::wrong_after_going_on() {
  struct {
    const char* name;
    std::atomic<uint64_t>& count;
    uint64_t wanted;
  } threads[] = {{"spinning", seen_->spins, 3},
                 {"taking signals", seen_->signals, 3},
                 {"napping", seen_->naps, 3},
                 {"polling", seen_->polls, 3},
                 {"reading", seen_->reads, 3}};
  for (auto& t : threads) t.wanted += t.count;
  for (auto& t : threads) {
    for (int i = 0; t.count < t.wanted; ++i) {
      if (!child_.alive()) {
        const int status = child_.wait();
        return WIFSIGNALED(status) ? "killed by signal " + std::to_string(WTERMSIG(status)) : "ended";
      }
      // Only a program that is broken waits this long.
      if (i > 20'000) return std::string("no more ") + t.name;
      sleep_us(500);
    }
  }
  if (seen_->wrong_line == 0) return {};
  return "observer.cc:" + std::to_string(seen_->wrong_line) + ", value " + std::to_string(seen_->wrong_value);
}

}  // namespace virt::test
