/* fcntl(2): who gets the signals of an O_ASYNC descriptor, and which: F_SETOWN to a process and a group,
 * F_SETOWN_EX to a thread, F_SETSIG; and they come. */
#include "behaviour.h"

static volatile sig_atomic_t got_fd = -1;
static void on_signal(int s, siginfo_t* info, void* context) { (void)s, (void)context, got_fd = info->si_fd; }

int main(void) {
  struct sigaction a = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_RESTART};
  must(sigaction(SIGRTMIN + 3, &a, NULL) == 0);
  int p[3][2];
  struct f_owner_ex thread = {F_OWNER_TID, gettid()}, got;
  for (int i = 0; i < 3; i++) must(pipe(p[i]) == 0);
  must(fcntl(p[0][0], F_SETOWN, getpid()) == 0 && fcntl(p[0][0], F_SETSIG, SIGRTMIN + 3) == 0);
  must(fcntl(p[0][0], F_SETFL, O_ASYNC | O_NONBLOCK) == 0);
  must(fcntl(p[1][0], F_SETOWN, -getpgrp()) == 0);
  must(fcntl(p[2][0], F_SETOWN_EX, &thread) == 0 && fcntl(p[2][1], F_SETSIG, SIGUSR2) == 0);
  ready();
  must(fcntl(p[0][0], F_GETOWN) == getpid() && fcntl(p[0][0], F_GETSIG) == SIGRTMIN + 3);
  must((fcntl(p[0][0], F_GETFL) & (O_ASYNC | O_NONBLOCK)) == (O_ASYNC | O_NONBLOCK));
  must(fcntl(p[1][0], F_GETOWN_EX, &got) == 0 && got.type == F_OWNER_PGRP && got.pid == getpgrp());
  must(fcntl(p[2][0], F_GETOWN_EX, &got) == 0 && got.type == F_OWNER_TID && got.pid == gettid());
  must(fcntl(p[2][1], F_GETSIG) == SIGUSR2 && fcntl(p[2][1], F_GETOWN) == 0);
  must(got_fd == -1 && write(p[0][1], "x", 1) == 1);
  for (int i = 0; i < 20000 && got_fd == -1; i++) nap_ms(1);
  must(got_fd == p[0][0]);
  pass();
}
