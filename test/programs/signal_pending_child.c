/* SIGCHLD that waits, blocked: it tells which child ended and how, and the child can be waited for. */
#include "behaviour.h"

int main(void) {
  sigset_t set;
  siginfo_t info;
  sigemptyset(&set);
  sigaddset(&set, SIGCHLD);
  must(sigprocmask(SIG_BLOCK, &set, NULL) == 0);
  pid_t child = fork();
  must(child >= 0);
  if (child == 0) _exit(23);
  must(waitid(P_PID, (id_t)child, &info, WEXITED | WNOWAIT) == 0);
  ready();
  const struct timespec now = {0, 0};
  int status;
  must(sigtimedwait(&set, &info, &now) == SIGCHLD);
  must(info.si_code == CLD_EXITED && info.si_pid == child && info.si_status == 23 && info.si_uid == getuid());
  must(sigtimedwait(&set, &info, &now) == -1 && errno == EAGAIN);
  must(waitpid(-1, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 23);
  pass();
}
