/* waitid(2) for any child, in a thread that is not the one that forked it. */
#include "meanwhile.h"

static long wait_for_any(void* arg) {
  siginfo_t info = {0};
  long result = waitid(P_ALL, 0, &info, WEXITED);
  if (result == 0) {
    must(info.si_signo == SIGCHLD && info.si_code == CLD_EXITED && info.si_status == 9);
    must(info.si_pid == *(pid_t*)arg && info.si_uid == getuid());
  }
  return result;
}

int main(void) {
  struct call c;
  make_gate();
  pid_t child = fork_at_gate();
  if (child == 0) {
    wait_at_gate();
    _exit(9);
  }
  call_in_thread(&c, SYS_waitid, wait_for_any, &child);
  ready();
  still_inside(&c);
  open_gate();
  must(end_of_call(&c) == 0);
  must(waitpid(child, NULL, WNOHANG) == -1 && errno == ECHILD);
  pass();
}
