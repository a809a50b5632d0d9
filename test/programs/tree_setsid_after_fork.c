/* A process that made its own session after it had a child: the child is still in the session both were born
 * into. */
#include "meanwhile.h"

int main(void) {
  make_gate();
  int p[2];
  must(pipe(p) == 0);
  pid_t old = getsid(0), group = getpgrp(), middle = fork_at_gate();
  if (middle == 0) {
    pid_t child = fork();
    must(child >= 0);
    if (child == 0) {
      must(write(p[1], "r", 1) == 1);
      wait_at_gate();
      must(getsid(0) == old && getpgrp() == group && getppid() != old);
      _exit(0);
    }
    must(setsid() == getpid() && write(p[1], "r", 1) == 1);
    wait_at_gate();
    must(getsid(0) == getpid() && getsid(child) == old);
    ended_well(child);
    _exit(0);
  }
  char byte;
  for (int i = 0; i < 2; i++) must(read(p[0], &byte, 1) == 1);
  ready();
  open_gate();
  ended_well(middle);
  pass();
}
