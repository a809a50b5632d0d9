/* A process group whose leader is gone: the others are still in it, it can be signalled, and joined. */
#include "meanwhile.h"

int main(void) {
  make_gate();
  pid_t leader = fork_at_gate(), member[2];
  if (leader == 0) {
    wait_at_gate();
    _exit(0);
  }
  must(setpgid(leader, leader) == 0);
  for (int i = 0; i < 2; i++) {
    member[i] = fork_at_gate();
    if (member[i] == 0) {
      wait_at_gate();
      pause();
    }
    must(setpgid(member[i], leader) == 0);
  }
  int status;
  must(kill(leader, SIGKILL) == 0 && waitpid(leader, &status, 0) == leader);
  ready();
  must(kill(leader, 0) == -1 && errno == ESRCH);
  for (int i = 0; i < 2; i++) must(getpgid(member[i]) == leader);
  pid_t late = fork_at_gate();
  if (late == 0) {
    must(setpgid(0, leader) == 0);
    wait_at_gate();
    pause();
  }
  while (getpgid(late) != leader) nap_ms(1);
  must(kill(-leader, SIGUSR1) == 0);
  for (int i = 0; i < 3; i++) {
    must(waitpid(-leader, &status, 0) > 0 && WIFSIGNALED(status) && WTERMSIG(status) == SIGUSR1);
  }
  must(waitpid(-leader, &status, 0) == -1 && errno == ECHILD && kill(-leader, 0) == -1 && errno == ESRCH);
  pass();
}
