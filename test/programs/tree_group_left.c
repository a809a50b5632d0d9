/* A process that founded a group, was joined there, and then left for another: the group goes by its number
 * without it. */
#include "meanwhile.h"

int main(void) {
  make_gate();
  pid_t founder = fork_at_gate(), member;
  if (founder == 0) {
    wait_at_gate();
    pause();
  }
  must(setpgid(founder, founder) == 0);
  member = fork_at_gate();
  if (member == 0) {
    wait_at_gate();
    pause();
  }
  must(setpgid(member, founder) == 0 && setpgid(founder, getpgrp()) == 0);
  ready();
  must(getpgid(founder) == getpgrp() && getpgid(member) == founder);
  int status;
  must(kill(-founder, SIGTERM) == 0 && waitpid(member, &status, 0) == member && WTERMSIG(status) == SIGTERM);
  must(waitpid(founder, &status, WNOHANG) == 0);
  must(kill(founder, SIGTERM) == 0 && waitpid(founder, &status, 0) == founder);
  pass();
}
