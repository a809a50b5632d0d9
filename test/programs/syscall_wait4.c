/* wait4(2): a process that waits for its child waits on, and gets its status. */
#include "meanwhile.h"

static long wait_for_child(void* arg) {
  (void)arg;
  pid_t child = fork_at_gate();
  if (child == 0) {
    wait_at_gate();
    _exit(42);
  }
  leave_gate();
  int status = 0;
  long got = waitpid(child, &status, 0);
  must(got != child || (WIFEXITED(status) && WEXITSTATUS(status) == 42));
  return got == child ? 0 : -1;
}

int main(void) {
  struct call c;
  make_gate();
  call_in_child(&c, SYS_wait4, wait_for_child, NULL);
  ready();
  still_inside(&c);
  open_gate();
  must(end_of_call(&c) == 0);
  pass();
}
