/* Many children at once, some ended, some in groups of their own: every one is there under its pid, and no
 * other. */
#include "meanwhile.h"

enum { kChildren = 80 };

int main(void) {
  make_gate();
  pid_t child[kChildren];
  siginfo_t info;
  for (int i = 0; i < kChildren; i++) {
    child[i] = fork_at_gate();
    if (child[i] != 0) continue;
    if (i % 5 == 0) _exit(i);
    if (i % 7 == 0) must(setpgid(0, 0) == 0);
    pid_t me = getpid(), parent = getppid(), group = getpgrp();
    wait_at_gate();
    must(getpid() == me && getppid() == parent && getpgrp() == group);
    _exit(i);
  }
  for (int i = 0; i < kChildren; i += 5) must(waitid(P_PID, (id_t)child[i], &info, WEXITED | WNOWAIT) == 0);
  for (int i = 0; i < kChildren; i++) {
    if (i % 5 != 0) await_call(child[i], child[i], SYS_read);
  }
  ready();
  open_gate();
  for (int i = 0; i < kChildren; i++) {
    int status;
    must(waitpid(child[i], &status, 0) == child[i] && WIFEXITED(status) && WEXITSTATUS(status) == i);
  }
  must(waitpid(-1, NULL, 0) == -1 && errno == ECHILD);
  pass();
}
