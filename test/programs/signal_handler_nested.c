/* Inside two handlers, one above the other, on the ordinary stack: each one's mask holds while it runs, and
 * after the return of both the first mask, the registers and the interrupted call's result are there. */
#include "meanwhile.h"

static volatile int depth, leave;

static void second(int s) {
  sigset_t now;
  (void)s, depth = 2;
  while (!leave) nap_ms(1);
  sigprocmask(SIG_BLOCK, NULL, &now);
  must(sigismember(&now, SIGUSR1) && sigismember(&now, SIGUSR2) && sigismember(&now, SIGHUP) &&
       sigismember(&now, SIGINT));
  depth = 3;
}

static void first(int s) {
  sigset_t now;
  (void)s, depth = 1;
  raise(SIGUSR2);
  must(depth == 3);
  sigprocmask(SIG_BLOCK, NULL, &now);
  must(sigismember(&now, SIGUSR1) && !sigismember(&now, SIGUSR2) && sigismember(&now, SIGHUP) &&
       !sigismember(&now, SIGINT));
  depth = 4;
}

static pid_t tid;

static void* run(void* arg) {
  sigset_t now;
  int p[2];
  char byte;
  (void)arg;
  must(pipe(p) == 0);
  __atomic_store_n(&tid, gettid(), __ATOMIC_SEQ_CST);
  must(read(p[0], &byte, 1) == -1 && errno == EINTR && depth == 4);
  must(pthread_sigmask(SIG_BLOCK, NULL, &now) == 0 && !sigismember(&now, SIGUSR1) &&
       !sigismember(&now, SIGHUP));
  return NULL;
}

int main(void) {
  struct sigaction a = {.sa_handler = first}, b = {.sa_handler = second};
  sigemptyset(&a.sa_mask);
  sigaddset(&a.sa_mask, SIGHUP);
  sigemptyset(&b.sa_mask);
  sigaddset(&b.sa_mask, SIGINT);
  must(sigaction(SIGUSR1, &a, NULL) == 0 && sigaction(SIGUSR2, &b, NULL) == 0);
  pthread_t thread;
  must(pthread_create(&thread, NULL, run, NULL) == 0);
  while (__atomic_load_n(&tid, __ATOMIC_SEQ_CST) == 0) nap_ms(1);
  await_call(getpid(), tid, SYS_read);
  must(pthread_kill(thread, SIGUSR1) == 0);
  while (depth != 2) nap_ms(1);
  ready();
  leave = 1;
  must(pthread_join(thread, NULL) == 0);
  pass();
}
