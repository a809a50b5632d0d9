/* A subreaper that has adopted a process of a session whose leader is gone, as process managers have. */
#include "meanwhile.h"

#include <sys/prctl.h>

int main(void) {
  make_gate();
  int p[2];
  must(pipe(p) == 0 && prctl(PR_SET_CHILD_SUBREAPER, 1) == 0);
  const pid_t manager = getpid();
  pid_t leader = fork_at_gate();
  if (leader == 0) {
    must(setsid() == getpid());
    leader = getpid();
    if (fork() != 0) _exit(0);
    while (getppid() != manager) nap_ms(1);
    pid_t me = getpid();
    must(write(p[1], &me, sizeof me) == sizeof me);
    wait_at_gate();
    must(getppid() == manager && getsid(0) == leader && getpgrp() == leader);
    _exit(5);
  }
  ended_well(leader);
  pid_t orphan;
  must(read(p[0], &orphan, sizeof orphan) == sizeof orphan);
  ready();
  must(getsid(orphan) == leader && kill(leader, 0) == -1);
  open_gate();
  int status;
  must(waitpid(orphan, &status, 0) == orphan && WEXITSTATUS(status) == 5);
  pass();
}
