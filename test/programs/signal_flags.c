/* sigaction(2): what the flags mean when a signal comes afterwards: SA_RESETHAND once only, SA_NODEFER
 * nested, SA_ONSTACK on the other stack, sa_mask held back meanwhile. */
#include "behaviour.h"

static char other[64 << 10];
static volatile int resets, depth, deepest, on_other, masked;

static void reset(int s) { (void)s, resets++; }
static void nest(int s) {
  if (++depth > deepest) deepest = depth;
  if (depth < 3) raise(s);
  depth--;
}
static void where(int s) {
  char here;
  (void)s, on_other = &here >= other && &here < other + sizeof other;
}
static void hold(int s) {
  sigset_t pending;
  raise(SIGRTMIN + 4);
  sigpending(&pending);
  (void)s, masked = sigismember(&pending, SIGRTMIN + 4);
}
static void nothing(int s) { (void)s, masked += 10; }

static void set(int signal, void (*handler)(int), int flags, int also) {
  struct sigaction a = {.sa_handler = handler, .sa_flags = flags};
  sigemptyset(&a.sa_mask);
  if (also != 0) sigaddset(&a.sa_mask, also);
  must(sigaction(signal, &a, NULL) == 0);
}

int main(void) {
  stack_t stack = {.ss_sp = other, .ss_size = sizeof other};
  must(sigaltstack(&stack, NULL) == 0);
  set(SIGWINCH, reset, SA_RESETHAND, 0); /* ignored by default */
  set(SIGUSR1, nest, SA_NODEFER, 0);
  set(SIGUSR2, where, SA_ONSTACK, 0);
  set(SIGHUP, hold, 0, SIGRTMIN + 4);
  set(SIGRTMIN + 4, nothing, 0, 0);
  ready();
  must(raise(SIGWINCH) == 0 && raise(SIGWINCH) == 0 && resets == 1);
  must(raise(SIGUSR1) == 0 && deepest == 3);
  must(raise(SIGUSR2) == 0 && on_other);
  must(raise(SIGHUP) == 0 && masked == 11);
  pass();
}
