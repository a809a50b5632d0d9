/* tgkill(2): a signal that waits for one thread is taken by no other, and stands beside one that waits for
 * the process. */
#include "meanwhile.h"

static pthread_barrier_t before, after;

static void* aimed_at(void* arg) {
  sigset_t set, pending;
  siginfo_t info;
  const struct timespec now = {0, 0};
  (void)arg;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR1);
  pthread_barrier_wait(&before);
  pthread_barrier_wait(&after);
  must(sigpending(&pending) == 0 && sigismember(&pending, SIGUSR1) == 1);
  /* The C library's sigtimedwait() makes SI_USER of SI_TKILL. */
  must(syscall(SYS_rt_sigtimedwait, &set, &info, &now, 8) == SIGUSR1 && info.si_code == SI_TKILL &&
       info.si_pid == getpid());
  return NULL;
}

int main(void) {
  sigset_t set, pending;
  siginfo_t info;
  pthread_t thread;
  const struct timespec now = {0, 0};
  sigemptyset(&set);
  sigaddset(&set, SIGUSR1);
  sigaddset(&set, SIGUSR2);
  must(sigprocmask(SIG_BLOCK, &set, NULL) == 0);
  must(pthread_barrier_init(&before, NULL, 2) == 0 && pthread_barrier_init(&after, NULL, 2) == 0);
  must(pthread_create(&thread, NULL, aimed_at, NULL) == 0);
  pthread_barrier_wait(&before);
  must(pthread_kill(thread, SIGUSR1) == 0 && kill(getpid(), SIGUSR2) == 0);
  ready();
  must(sigpending(&pending) == 0 && sigismember(&pending, SIGUSR1) == 0 &&
       sigismember(&pending, SIGUSR2) == 1);
  must(sigtimedwait(&set, &info, &now) == SIGUSR2 && info.si_code == SI_USER);
  must(sigtimedwait(&set, &info, &now) == -1 && errno == EAGAIN);
  pthread_barrier_wait(&after);
  must(pthread_join(thread, NULL) == 0);
  pass();
}
