/* setitimer(2): the real, virtual and profiling timer of a process go on with what remains, and keep firing;
 * alarm(2) of a child. */
#include "meanwhile.h"

#include <sys/time.h>

static volatile sig_atomic_t real, virt, prof;
static void count(int s) { s == SIGALRM ? real++ : s == SIGVTALRM ? virt++ : prof++; }

int main(void) {
  struct sigaction a = {.sa_handler = count, .sa_flags = SA_RESTART};
  must(sigaction(SIGALRM, &a, NULL) == 0 && sigaction(SIGVTALRM, &a, NULL) == 0 &&
       sigaction(SIGPROF, &a, NULL) == 0);
  struct itimerval often = {{0, 10000}, {0, 10000}}, cpu = {{50, 0}, {77, 0}},
                   used = {{0, 20000}, {0, 20000}}, now;
  make_gate();
  pid_t child = fork_at_gate();
  if (child == 0) {
    alarm(50);
    wait_at_gate();
    unsigned left = alarm(0);
    if (left < 40 || left > 50) fail("alarm has %u s left", left);
    _exit(0);
  }
  await_call(child, child, SYS_read);
  must(setitimer(ITIMER_REAL, &often, NULL) == 0 && setitimer(ITIMER_VIRTUAL, &cpu, NULL) == 0 &&
       setitimer(ITIMER_PROF, &used, NULL) == 0);
  ready();
  must(getitimer(ITIMER_VIRTUAL, &now) == 0 && now.it_interval.tv_sec == 50 && now.it_value.tv_sec >= 75 &&
       now.it_value.tv_sec <= 77);
  must(getitimer(ITIMER_REAL, &now) == 0 && now.it_interval.tv_usec == 10000);
  real = prof = 0;
  for (double end = seconds(CLOCK_PROCESS_CPUTIME_ID) + 2;
       prof == 0 && seconds(CLOCK_PROCESS_CPUTIME_ID) < end;) {
  }
  if (real == 0 || prof == 0 || virt != 0)
    fail("%d real, %d virtual, %d profiling signals", real, virt, prof);
  open_gate();
  ended_well(child);
  pass();
}
