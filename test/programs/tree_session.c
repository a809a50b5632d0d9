/* Sessions: a child that leads one, with two process groups in it; who is where, and that a group cannot be
 * joined from another session. */
#include "meanwhile.h"

int main(void) {
  make_gate();
  int p[2];
  must(pipe(p) == 0);
  pid_t leader = fork_at_gate();
  if (leader == 0) {
    must(setsid() == getpid());
    pid_t member[2];
    for (int i = 0; i < 2; i++) {
      member[i] = fork();
      must(member[i] >= 0);
      if (member[i] != 0) {
        if (i == 1) must(setpgid(member[1], member[1]) == 0);
        continue;
      }
      if (i == 1) setpgid(0, 0);
      pid_t group = i == 0 ? getppid() : getpid();
      must(write(p[1], "r", 1) == 1);
      wait_at_gate();
      must(getsid(0) == getppid() && getpgrp() == group && getpid() != getsid(0));
      if (i == 0) must(setpgid(0, 0) == 0); /* it is no leader: it may */
      _exit(0);
    }
    must(write(p[1], "r", 1) == 1);
    wait_at_gate();
    must(getsid(0) == getpid() && getpgrp() == getpid() && setsid() == -1 && errno == EPERM);
    for (int i = 0; i < 2; i++) ended_well(member[i]);
    _exit(0);
  }
  char bytes[3];
  for (int i = 0; i < 3; i++) must(read(p[0], bytes, 1) == 1);
  ready();
  must(getsid(leader) == leader && getpgid(leader) == leader && getsid(0) != leader);
  must(setpgid(0, leader) == -1 && errno == EPERM);
  open_gate();
  ended_well(leader);
  pass();
}
