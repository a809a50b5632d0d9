/* SIGCHLD ignored, and SA_NOCLDWAIT: children that end leave no zombie (sigaction(2)). */
#include "meanwhile.h"

static void nothing(int s) { (void)s; }

int main(void) {
  make_gate();
  pid_t ignorer = fork_at_gate();
  if (ignorer == 0) {
    must(signal(SIGCHLD, SIG_IGN) != SIG_ERR);
    pid_t child = fork();
    if (child == 0) {
      wait_at_gate();
      _exit(1);
    }
    wait_at_gate();
    must(waitpid(child, NULL, 0) == -1 && errno == ECHILD);
    _exit(0);
  }
  struct sigaction a = {.sa_handler = nothing, .sa_flags = SA_NOCLDWAIT | SA_RESTART};
  must(sigaction(SIGCHLD, &a, NULL) == 0);
  pid_t child = fork_at_gate();
  if (child == 0) {
    wait_at_gate();
    _exit(2);
  }
  ready();
  open_gate();
  must(waitpid(-1, NULL, 0) == -1 && errno == ECHILD);
  pass();
}
