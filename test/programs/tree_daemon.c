/* A daemon made by forking twice (daemon(7)): the first program has ended, the daemon is init's child, in a
 * session without a leader, and goes on. */
#include "meanwhile.h"

int main(void) {
  pid_t child = fork();
  must(child >= 0);
  if (child > 0) _exit(0);
  must(setsid() == getpid());
  pid_t session = getpid(), daemon = fork();
  must(daemon >= 0);
  if (daemon > 0) _exit(0);
  while (getppid() != 1) nap_ms(1);
  must(chdir("/") == 0);
  umask(0);
  pid_t me = getpid();
  ready();
  must(getpid() == me && getppid() == 1 && getsid(0) == session && getpgrp() == session && me != session);
  must(kill(session, 0) == -1 && errno == ESRCH);
  must(setsid() == me); /* it leads no group: it may */
  pass();
}
