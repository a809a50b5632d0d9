/* A child that was forked by a thread which is not the first: the process is its parent, and any thread may
 * wait for it. */
#include "meanwhile.h"

static pid_t child;
static pthread_barrier_t barrier;

static void* parent(void* arg) {
  child = fork_at_gate();
  if (child == 0) {
    pid_t mother = getppid();
    wait_at_gate();
    _exit(getppid() == mother ? 6 : 1);
  }
  pthread_barrier_wait(&barrier);
  pthread_barrier_wait(&barrier);
  return arg;
}

int main(void) {
  make_gate();
  pthread_t thread;
  must(pthread_barrier_init(&barrier, NULL, 2) == 0 && pthread_create(&thread, NULL, parent, NULL) == 0);
  pthread_barrier_wait(&barrier);
  ready();
  open_gate();
  int status;
  must(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 6);
  pthread_barrier_wait(&barrier);
  must(pthread_join(thread, NULL) == 0);
  pass();
}
