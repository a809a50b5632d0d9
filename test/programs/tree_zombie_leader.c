/* A zombie that leads a process group and one that leads a session, with members that live: the group and the
 * session go on, and their leaders can still be waited for. */
#include "meanwhile.h"

int main(void) {
  make_gate();
  siginfo_t info;
  int p[2];
  must(pipe(p) == 0);
  pid_t group = fork_at_gate();
  if (group == 0) {
    setpgid(0, 0);
    _exit(3);
  }
  must(setpgid(group, group) == 0 || errno == EACCES || errno == ESRCH);
  must(waitid(P_PID, (id_t)group, &info, WEXITED | WNOWAIT) == 0);
  pid_t member = fork_at_gate();
  if (member == 0) {
    must(setpgid(0, group) == 0);
    must(write(p[1], "r", 1) == 1);
    wait_at_gate();
    must(getpgrp() == group);
    _exit(0);
  }
  pid_t session = fork_at_gate();
  if (session == 0) {
    session = setsid();
    if (fork() != 0) _exit(4);
    while (getppid() != 1) nap_ms(1);
    must(write(p[1], "r", 1) == 1);
    wait_at_gate();
    must(getsid(0) == session && getpgrp() == session && getppid() == 1);
    must(write(p[1], "k", 1) == 1);
    _exit(0);
  }
  char byte;
  for (int i = 0; i < 2; i++) must(read(p[0], &byte, 1) == 1 && byte == 'r');
  must(waitid(P_PID, (id_t)session, &info, WEXITED | WNOWAIT) == 0);
  ready();
  open_gate();
  must(read(p[0], &byte, 1) == 1 && byte == 'k');
  ended_well(member);
  int status;
  must(waitpid(group, &status, 0) == group && WEXITSTATUS(status) == 3);
  must(waitpid(session, &status, 0) == session && WEXITSTATUS(status) == 4);
  pass();
}
