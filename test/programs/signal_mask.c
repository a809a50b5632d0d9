/* sigprocmask(2): the blocked signals of a process, all of them, and that they do wait. */
#include "behaviour.h"

static volatile sig_atomic_t got;
static void count(int s) { (void)s, got++; }

int main(void) {
  sigset_t mask, now;
  sigemptyset(&mask);
  for (int s = 1; s <= SIGRTMAX; s += 2) sigaddset(&mask, s);
  must(sigprocmask(SIG_SETMASK, &mask, NULL) == 0);
  must(sigprocmask(SIG_SETMASK, NULL, &mask) == 0); /* as the kernel took it */
  must(sigismember(&mask, SIGHUP) && signal(SIGHUP, count) != SIG_ERR && signal(SIGUSR2, count) != SIG_ERR);
  ready();
  must(sigprocmask(SIG_SETMASK, NULL, &now) == 0);
  for (int s = 1; s <= SIGRTMAX; s++) {
    if (sigismember(&now, s) != sigismember(&mask, s)) fail("signal %d", s);
  }
  must(raise(SIGHUP) == 0 && got == 0 && raise(SIGUSR2) == 0 && got == 1);
  sigemptyset(&mask);
  must(sigprocmask(SIG_SETMASK, &mask, NULL) == 0 && got == 2);
  pass();
}
