/* kill(2) between the processes of a pod right afterwards: it arrives, with the sender's pid, in a process
 * that waits in a call that SA_RESTART restarts. */
#include "meanwhile.h"

static volatile sig_atomic_t sender;
static void handle(int s, siginfo_t* info, void* context) { (void)s, (void)context, sender = info->si_pid; }

int main(void) {
  struct sigaction a = {.sa_sigaction = handle, .sa_flags = SA_SIGINFO | SA_RESTART};
  must(sigaction(SIGUSR1, &a, NULL) == 0);
  make_gate();
  pid_t receiver = fork_at_gate();
  if (receiver == 0) {
    wait_at_gate(); /* read(2), restarted after the handler */
    must(sender != 0 && sender != getppid());
    _exit(0);
  }
  int p[2];
  must(pipe(p) == 0);
  pid_t child = fork_at_gate();
  if (child == 0) {
    char byte;
    must(read(p[0], &byte, 1) == 1 && kill(receiver, SIGUSR1) == 0 && kill(getppid(), SIGUSR1) == 0);
    must(write(p[1], &byte, 1) == 1);
    pause();
  }
  ready();
  must(write(p[1], "x", 1) == 1);
  while (sender == 0) nap_ms(1);
  must(sender == child);
  nap_ms(5);
  open_gate();
  ended_well(receiver);
  int status;
  must(kill(child, SIGKILL) == 0 && waitpid(child, &status, 0) == child && WTERMSIG(status) == SIGKILL);
  pass();
}
