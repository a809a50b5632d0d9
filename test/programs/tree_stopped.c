/* A child stopped by SIGSTOP of which its parent knows: it is still stopped, the parent is not told a second
 * time, and SIGCONT lets it go on (wait(2)). */
#include "meanwhile.h"

static volatile sig_atomic_t told;
static void count(int s) { (void)s, told++; }

int main(void) {
  struct sigaction a = {.sa_handler = count, .sa_flags = SA_RESTART};
  must(sigaction(SIGCHLD, &a, NULL) == 0);
  make_gate();
  pid_t child = fork_at_gate();
  if (child == 0) {
    wait_at_gate();
    _exit(8);
  }
  await_call(child, child, SYS_read);
  int status;
  must(kill(child, SIGSTOP) == 0 && waitpid(child, &status, WUNTRACED) == child);
  must(WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP && told == 1);
  ready();
  must(state_of(child) == 'T' && told == 1);
  must(waitpid(child, &status, WUNTRACED | WNOHANG) == 0);
  must(kill(child, SIGCONT) == 0 && waitpid(child, &status, WCONTINUED) == child && WIFCONTINUED(status));
  await_state(child, 'S');
  open_gate();
  must(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 8);
  pass();
}
