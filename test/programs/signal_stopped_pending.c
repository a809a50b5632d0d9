/* A stopped process to which signals are sent: they wait, and are delivered when it is continued (signal(7)).
 */
#include "meanwhile.h"

static volatile sig_atomic_t usr, value;
static void one(int s) { (void)s, usr++; }
static void two(int s, siginfo_t* i, void* c) { (void)s, (void)c, value = i->si_value.sival_int; }

int main(void) {
  make_gate();
  pid_t child = fork_at_gate();
  if (child == 0) {
    struct sigaction a = {.sa_handler = one, .sa_flags = SA_RESTART};
    struct sigaction b = {.sa_sigaction = two, .sa_flags = SA_RESTART | SA_SIGINFO};
    must(sigaction(SIGUSR1, &a, NULL) == 0 && sigaction(SIGRTMIN, &b, NULL) == 0);
    raise(SIGSTOP);
    must(usr == 1 && value == 77);
    wait_at_gate();
    _exit(0);
  }
  int status;
  must(waitpid(child, &status, WUNTRACED) == child && WIFSTOPPED(status));
  must(kill(child, SIGUSR1) == 0 && sigqueue(child, SIGRTMIN, (union sigval){.sival_int = 77}) == 0);
  ready();
  must(state_of(child) == 'T');
  must(kill(child, SIGCONT) == 0);
  open_gate();
  ended_well(child);
  pass();
}
