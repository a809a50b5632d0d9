/* sigsuspend(2): the mask of the wait lets the signal in; a signal it blocks still waits; the old mask is
 * back after. */
#include "meanwhile.h"

static volatile sig_atomic_t order[4], n;
static void handle(int s) { order[n++ & 3] = s; }

static long suspend(void* arg) {
  sigset_t both, second, now;
  (void)arg;
  sigemptyset(&both);
  sigaddset(&both, SIGUSR1);
  sigaddset(&both, SIGUSR2);
  sigemptyset(&second);
  sigaddset(&second, SIGUSR2);
  must(sigprocmask(SIG_BLOCK, &both, NULL) == 0);
  long result = sigsuspend(&second);
  int error = errno;
  must(n == 1 && order[0] == SIGUSR1);
  must(sigprocmask(SIG_BLOCK, NULL, &now) == 0 && sigismember(&now, SIGUSR1) == 1 &&
       sigismember(&now, SIGUSR2) == 1);
  must(sigprocmask(SIG_UNBLOCK, &both, NULL) == 0 && n == 2 && order[1] == SIGUSR2);
  errno = error;
  return result;
}

int main(void) {
  must(signal(SIGUSR1, handle) != SIG_ERR && signal(SIGUSR2, handle) != SIG_ERR);
  struct call c;
  call_in_child(&c, SYS_rt_sigsuspend, suspend, NULL);
  must(kill(c.pid, SIGUSR2) == 0); /* blocked in there: it waits */
  ready();
  still_inside(&c);
  must(kill(c.pid, SIGUSR1) == 0);
  must(end_of_call(&c) == -1 && errno == EINTR);
  pass();
}
