/* Process tree: an orphan that init has adopted, with children of its own, and their session. */
#include "meanwhile.h"

int main(void) {
  make_gate();
  int p[2];
  must(pipe(p) == 0);
  pid_t middle = fork_at_gate();
  if (middle == 0) {
    if (fork() != 0) _exit(0);
    while (getppid() != 1) nap_ms(1);
    pid_t me = getpid(), session = getsid(0), child[2];
    for (int i = 0; i < 2; i++) {
      child[i] = fork();
      must(child[i] >= 0);
      if (child[i] != 0) continue;
      wait_at_gate();
      must(getppid() == me && getsid(0) == session);
      _exit(0);
    }
    must(write(p[1], "r", 1) == 1);
    wait_at_gate();
    must(getppid() == 1 && getpid() == me && getsid(0) == session);
    for (int i = 0; i < 2; i++) ended_well(child[i]);
    must(write(p[1], "k", 1) == 1);
    _exit(0);
  }
  ended_well(middle);
  char byte;
  must(close(p[1]) == 0 && read(p[0], &byte, 1) == 1 && byte == 'r');
  ready();
  open_gate();
  must(read(p[0], &byte, 1) == 1 && byte == 'k' && read(p[0], &byte, 1) == 0);
  must(waitpid(-1, NULL, 0) == -1 && errno == ECHILD);
  pass();
}
