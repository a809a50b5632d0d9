/* A stopped process with several threads: all of them stand still, and all go on after SIGCONT. */
#include "meanwhile.h"

static volatile long* counters; /* shared with the parent */

static void* spin(void* arg) {
  for (volatile long* n = arg;; ++*n) nap_ms(1);
  return NULL;
}

#include <sys/mman.h>

int main(void) {
  counters = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  must(counters != MAP_FAILED);
  pid_t child = fork();
  must(child >= 0);
  if (child == 0) {
    pthread_t thread;
    for (long i = 1; i < 4; i++) must(pthread_create(&thread, NULL, spin, (void*)(counters + i)) == 0);
    spin((void*)counters);
  }
  for (int i = 0; i < 4; i++) {
    while (counters[i] == 0) nap_ms(1);
  }
  int status;
  must(kill(child, SIGSTOP) == 0 && waitpid(child, &status, WUNTRACED) == child);
  long before[4];
  for (int i = 0; i < 4; i++) before[i] = counters[i];
  ready();
  nap_ms(10);
  for (int i = 0; i < 4; i++) must(counters[i] == before[i]);
  must(state_of(child) == 'T' && kill(child, SIGCONT) == 0);
  for (int i = 0; i < 4; i++) {
    for (int ms = 0; counters[i] == before[i]; ms++) {
      must(ms < 20000);
      nap_ms(1);
    }
  }
  must(kill(child, SIGTERM) == 0 && waitpid(child, &status, 0) == child && WTERMSIG(status) == SIGTERM);
  pass();
}
