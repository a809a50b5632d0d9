/* A child stopped by SIGTSTP, in a group of its own, for which its parent has not asked yet: it can, once,
 * and learns the signal (wait(2)). SIGCHLD is at its default, ignored. */
#include "meanwhile.h"

int main(void) {
  make_gate();
  pid_t child = fork_at_gate();
  if (child == 0) {
    wait_at_gate();
    _exit(8);
  }
  must(setpgid(child, child) == 0);
  await_call(child, child, SYS_read);
  must(kill(child, SIGTSTP) == 0);
  await_state(child, 'T');
  ready();
  int status;
  must(state_of(child) == 'T');
  must(waitpid(child, &status, WUNTRACED | WNOHANG) == child && WIFSTOPPED(status) &&
       WSTOPSIG(status) == SIGTSTP);
  must(waitpid(child, &status, WUNTRACED | WNOHANG) == 0);
  must(kill(-child, SIGCONT) == 0);
  open_gate();
  must(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 8);
  pass();
}
