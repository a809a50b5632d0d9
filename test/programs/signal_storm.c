/* Signals that arrive all the time, whatever else goes on: a child sends numbered real-time signals while the
 * pod is frozen and let go; every one arrives, once, in order, and interrupted calls are restarted. */
#include "meanwhile.h"

static volatile sig_atomic_t expected, wrong;

static void take(int s, siginfo_t* info, void* context) {
  (void)s, (void)context;
  if (info->si_value.sival_int != expected) wrong = 1;
  expected = info->si_value.sival_int + 1;
}

int main(void) {
  struct sigaction a = {.sa_sigaction = take, .sa_flags = SA_SIGINFO | SA_RESTART};
  must(sigaction(SIGRTMIN + 1, &a, NULL) == 0);
  make_gate();
  int p[2];
  must(pipe(p) == 0);
  pid_t child = fork();
  must(child >= 0);
  if (child == 0) {
    leave_gate();
    must(fcntl(gate[0], F_SETFL, O_NONBLOCK) == 0);
    int n = 0;
    char byte;
    for (; read(gate[0], &byte, 1) == -1 && errno == EAGAIN; n++) {
      while (sigqueue(getppid(), SIGRTMIN + 1, (union sigval){.sival_int = n}) != 0) must(errno == EAGAIN);
      nap_ms(1);
    }
    must(write(p[1], &n, sizeof n) == sizeof n);
    _exit(0);
  }
  while (expected == 0) nap_ms(1);
  ready();
  open_gate();
  int sent = 0;
  must(read(p[0], &sent, sizeof sent) == sizeof sent);
  ended_well(child);
  must(!wrong && expected == sent && sent > 0);
  pass();
}
