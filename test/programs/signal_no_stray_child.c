/* SIGCHLD comes for children that end and for nothing else: a parent with living, orphaned and zombie
 * relatives hears nothing meanwhile. */
#include "meanwhile.h"

static volatile sig_atomic_t heard;
static void count(int s) { (void)s, heard++; }

int main(void) {
  make_gate();
  pid_t zombie = fork_at_gate();
  if (zombie == 0) _exit(1);
  siginfo_t info;
  must(waitid(P_PID, (id_t)zombie, &info, WEXITED | WNOWAIT) == 0);
  pid_t middle = fork_at_gate();
  if (middle == 0) {
    setsid();
    if (fork() == 0) wait_at_gate(); /* an orphan in a session whose leader is gone */
    _exit(0);
  }
  ended_well(middle);
  pid_t child = fork_at_gate();
  if (child == 0) {
    wait_at_gate();
    _exit(0);
  }
  struct sigaction a = {.sa_handler = count};
  must(sigaction(SIGCHLD, &a, NULL) == 0);
  ready();
  must(heard == 0);
  open_gate();
  ended_well(child);
  must(heard == 1 && waitpid(zombie, NULL, 0) == zombie && waitpid(-1, NULL, 0) == -1 && errno == ECHILD);
  pass();
}
