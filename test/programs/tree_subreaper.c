/* prctl(2), PR_SET_CHILD_SUBREAPER: orphans below are adopted by it and not by init: those from before and
 * new ones. */
#include "meanwhile.h"

#include <sys/prctl.h>

/* A grandchild whose parent ends at once, and that exits with `code` when the gate opens. */
static pid_t make_orphan(int code) {
  int p[2];
  must(pipe(p) == 0);
  pid_t middle = fork(), orphan = 0;
  must(middle >= 0);
  if (middle == 0) {
    if (gate[1] >= 0) close(gate[1]);
    orphan = fork();
    must(orphan >= 0);
    if (orphan > 0) {
      must(write(p[1], &orphan, sizeof orphan) == sizeof orphan);
      _exit(0);
    }
    close(p[1]);
    while (getppid() == middle) nap_ms(1);
    wait_at_gate();
    _exit(code);
  }
  must(read(p[0], &orphan, sizeof orphan) == sizeof orphan);
  ended_well(middle);
  must(close(p[0]) == 0 && close(p[1]) == 0);
  return orphan;
}

int main(void) {
  make_gate();
  must(prctl(PR_SET_CHILD_SUBREAPER, 1) == 0);
  pid_t before = make_orphan(11);
  ready();
  int on = 0, status;
  must(prctl(PR_GET_CHILD_SUBREAPER, &on) == 0 && on == 1);
  pid_t after = make_orphan(12);
  open_gate();
  must(waitpid(before, &status, 0) == before && WEXITSTATUS(status) == 11);
  must(waitpid(after, &status, 0) == after && WEXITSTATUS(status) == 12);
  pass();
}
