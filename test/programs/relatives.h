/* Relatives of a behaviour: processes that are set up before ready() and check afterwards. Each waits for the
 * harness by itself, so that relatives stand beside each other as ordinary programs do. */
#ifndef RELATIVES_H
#define RELATIVES_H

#include "behaviour.h"

#include <sys/prctl.h>

/* What ready() does, without saying so: for relatives, whose parent says it. */
static inline void await_go(void) {
  const char* go = getenv("BEHAVIOUR_GO");
  if (go == NULL) fail("BEHAVIOUR_GO is not set");
  while (access(go, F_OK) != 0) nap_ms(5);
}

/* Forks a child that runs prepare() and, once the harness is done, check(). Returns when prepare() is
 * through. */
static inline pid_t relative(void (*prepare)(void), void (*check)(void)) {
  int said[2];
  char one = 'r';
  must(pipe(said) == 0);
  pid_t pid = fork();
  must(pid >= 0);
  if (pid == 0) {
    must(prctl(PR_SET_PDEATHSIG, SIGKILL) == 0); /* a parent that fails does not leave it behind */
    must(close(said[0]) == 0);
    if (prepare != NULL) prepare();
    must(write(said[1], &one, 1) == 1);
    must(close(said[1]) == 0);
    await_go();
    if (check != NULL) check();
    _exit(0);
  }
  must(close(said[1]) == 0);
  must(read(said[0], &one, 1) == 1);
  must(close(said[0]) == 0);
  return pid;
}

/* Waits for a relative and fails unless it was content. */
static inline void join_relative(pid_t pid) {
  int status = 0;
  must(waitpid(pid, &status, 0) == pid);
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
    fail("relative %d ended with status %x", (int)pid, status);
}

#endif
