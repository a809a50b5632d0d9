/* ppoll(2): the signal mask of the wait holds during the wait, and the thread's own mask is back afterwards.
 */
#include "meanwhile.h"

#include <poll.h>

static volatile sig_atomic_t handled;
static void handle(int s) { handled = s; }

static long wait_for(void* arg) {
  sigset_t blocked, none;
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGUSR1);
  sigemptyset(&none);
  must(pthread_sigmask(SIG_BLOCK, &blocked, NULL) == 0);
  struct pollfd p = {*(int*)arg, POLLIN, 0};
  long n = ppoll(&p, 1, NULL, &none);
  int error = errno;
  sigset_t now;
  must(pthread_sigmask(SIG_BLOCK, NULL, &now) == 0);
  must(sigismember(&now, SIGUSR1) == 1 && sigismember(&now, SIGUSR2) == 0);
  errno = error;
  return n;
}

int main(void) {
  int p[2];
  must(pipe(p) == 0 && signal(SIGUSR1, handle) != SIG_ERR);
  struct call signalled, fed;
  call_in_thread(&signalled, SYS_ppoll, wait_for, &p[0]);
  ready();
  still_inside(&signalled);
  must(handled == 0 && pthread_kill(signalled.thread, SIGUSR1) == 0);
  must(end_of_call(&signalled) == -1 && errno == EINTR && handled == SIGUSR1);
  call_in_thread(&fed, SYS_ppoll, wait_for, &p[0]);
  must(write(p[1], "x", 1) == 1);
  must(end_of_call(&fed) == 1);
  pass();
}
