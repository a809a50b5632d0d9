/* pthread_kill(3): threads for which the process's own SIGURG waits (as in a language run time that
 * interrupts its threads so): it still waits for each of them, as sent. */
#include "meanwhile.h"

static pthread_barrier_t before, after;

static void* aimed_at(void* arg) {
  sigset_t set;
  siginfo_t info;
  const struct timespec now = {0, 0};
  sigemptyset(&set);
  sigaddset(&set, SIGURG);
  pthread_barrier_wait(&before);
  pthread_barrier_wait(&after);
  must(syscall(SYS_rt_sigtimedwait, &set, &info, &now, 8) == SIGURG && info.si_code == SI_TKILL &&
       info.si_pid == getpid());
  return arg;
}

int main(void) {
  sigset_t set;
  pthread_t threads[4];
  sigemptyset(&set);
  sigaddset(&set, SIGURG);
  must(sigprocmask(SIG_BLOCK, &set, NULL) == 0);
  must(pthread_barrier_init(&before, NULL, 5) == 0 && pthread_barrier_init(&after, NULL, 5) == 0);
  for (int i = 0; i < 4; i++) must(pthread_create(&threads[i], NULL, aimed_at, NULL) == 0);
  pthread_barrier_wait(&before);
  for (int i = 0; i < 4; i++) must(pthread_kill(threads[i], SIGURG) == 0);
  ready();
  pthread_barrier_wait(&after);
  for (int i = 0; i < 4; i++) must(pthread_join(threads[i], NULL) == 0);
  pass();
}
