/* A parent that knows its child is stopped, and is stopped itself: nobody is told twice when both go on. */
#include "meanwhile.h"

static volatile sig_atomic_t told;
static void count(int s) { (void)s, told++; }

int main(void) {
  make_gate();
  pid_t parent = fork_at_gate();
  if (parent == 0) {
    struct sigaction a = {.sa_handler = count, .sa_flags = SA_RESTART};
    must(sigaction(SIGCHLD, &a, NULL) == 0);
    pid_t child = fork();
    must(child >= 0);
    if (child == 0) {
      raise(SIGSTOP);
      wait_at_gate();
      _exit(0);
    }
    int status;
    must(waitpid(child, &status, WUNTRACED) == child && WIFSTOPPED(status) && told == 1);
    raise(SIGSTOP);
    must(told == 1 && waitpid(child, &status, WUNTRACED | WNOHANG) == 0 && state_of(child) == 'T');
    must(kill(child, SIGCONT) == 0);
    wait_at_gate();
    ended_well(child);
    _exit(0);
  }
  int status;
  must(waitpid(parent, &status, WUNTRACED) == parent && WIFSTOPPED(status));
  ready();
  must(state_of(parent) == 'T' && waitpid(parent, &status, WUNTRACED | WNOHANG) == 0);
  must(kill(parent, SIGCONT) == 0);
  open_gate();
  ended_well(parent);
  pass();
}
