/* A session whose leader has ended and was waited for: its members, in two groups, are still in it, and new
 * processes of theirs are born into it. */
#include "meanwhile.h"

int main(void) {
  make_gate();
  int p[2];
  must(pipe(p) == 0);
  pid_t leader = fork_at_gate();
  if (leader == 0) {
    must(setsid() == getpid());
    pid_t session = getpid();
    for (int i = 0; i < 3; i++) {
      pid_t member = fork();
      must(member >= 0);
      if (member != 0) continue;
      if (i == 2) must(setpgid(0, 0) == 0);
      pid_t group = i == 2 ? getpid() : session;
      while (getppid() != 1) nap_ms(1);
      must(write(p[1], "r", 1) == 1);
      wait_at_gate();
      must(getsid(0) == session && getpgrp() == group && getppid() == 1);
      pid_t child = fork();
      if (child == 0) _exit(getsid(0) == session && getpgrp() == group ? 0 : 1);
      ended_well(child);
      must(write(p[1], "k", 1) == 1);
      _exit(0);
    }
    _exit(0);
  }
  ended_well(leader);
  char byte;
  for (int i = 0; i < 3; i++) must(read(p[0], &byte, 1) == 1 && byte == 'r');
  ready();
  open_gate();
  for (int i = 0; i < 3; i++) must(read(p[0], &byte, 1) == 1 && byte == 'k');
  must(kill(leader, 0) == -1 && errno == ESRCH);
  pass();
}
