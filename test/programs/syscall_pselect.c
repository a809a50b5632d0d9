/* pselect(2): as ppoll(2), the mask of the wait holds during the wait and no longer. */
#include "meanwhile.h"

#include <sys/select.h>

static volatile sig_atomic_t handled;
static void handle(int s) { handled = s; }

static long wait_for(void* arg) {
  sigset_t blocked, none;
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGUSR2);
  sigemptyset(&none);
  must(sigprocmask(SIG_BLOCK, &blocked, NULL) == 0);
  long n = pselect(0, NULL, NULL, NULL, NULL, &none);
  int error = errno;
  sigset_t now;
  must(sigprocmask(SIG_BLOCK, NULL, &now) == 0 && sigismember(&now, SIGUSR2) == 1 && handled == SIGUSR2);
  (void)arg;
  errno = error;
  return n;
}

int main(void) {
  must(signal(SIGUSR2, handle) != SIG_ERR);
  struct call c;
  call_in_child(&c, SYS_pselect6, wait_for, NULL);
  ready();
  still_inside(&c);
  must(kill(c.pid, SIGUSR2) == 0);
  must(end_of_call(&c) == -1 && errno == EINTR);
  pass();
}
