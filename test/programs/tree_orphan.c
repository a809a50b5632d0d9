/* Process tree: an orphan that init has adopted, still in the session and group it was born into. */
#include "behaviour.h"

int main(void) {
  int p[2];
  must(pipe(p) == 0);
  pid_t middle = fork();
  must(middle >= 0);
  if (middle == 0) {
    pid_t orphan = fork();
    must(orphan >= 0);
    if (orphan > 0) _exit(0);
    while (getppid() != 1) nap_ms(1);
    pid_t said[4] = {getpid(), getppid(), getpgrp(), getsid(0)};
    must(write(p[1], said, sizeof said) == sizeof said);
    ready();
    must(getpid() == said[0] && getppid() == 1 && getpgrp() == said[2] && getsid(0) == said[3]);
    must(write(p[1], "k", 1) == 1);
    _exit(0);
  }
  must(waitpid(middle, NULL, 0) == middle);
  pid_t said[4];
  char ok = 0;
  must(read(p[0], said, sizeof said) == sizeof said);
  must(said[1] == 1 && said[2] == getpgrp() && said[3] == getsid(0));
  must(close(p[1]) == 0);
  must(read(p[0], &ok, 1) == 1 && ok == 'k');
  pass();
}
