/* epoll_pwait(2): the mask of the wait holds during the wait; a signal it lets in ends it, and the thread's
 * own mask is back afterwards. */
#include "meanwhile.h"

#include <sys/epoll.h>

static volatile sig_atomic_t handled;
static void handle(int s) { handled = s; }

static long wait_for(void* arg) {
  sigset_t blocked, none;
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGUSR1);
  sigemptyset(&none);
  must(pthread_sigmask(SIG_BLOCK, &blocked, NULL) == 0);
  struct epoll_event e;
  long n = epoll_pwait(*(int*)arg, &e, 1, -1, &none);
  int error = errno;
  sigset_t now;
  must(pthread_sigmask(SIG_BLOCK, NULL, &now) == 0 && sigismember(&now, SIGUSR1) == 1);
  errno = error;
  return n;
}

int main(void) {
  int e = epoll_create1(0);
  must(e >= 0 && signal(SIGUSR1, handle) != SIG_ERR);
  struct call c;
  call_in_thread(&c, SYS_epoll_pwait, wait_for, &e);
  ready();
  still_inside(&c);
  must(handled == 0 && pthread_kill(c.thread, SIGUSR1) == 0);
  must(end_of_call(&c) == -1 && errno == EINTR && handled == SIGUSR1);
  pass();
}
