/* sigwaitinfo(2) and sigtimedwait(2): a stop alone makes the kernel return EINTR from them (signal(7)); the
 * program sees the signal that comes, or EAGAIN when the time is over. */
#include "meanwhile.h"

static long take(void* arg) {
  sigset_t set;
  siginfo_t info;
  sigemptyset(&set);
  sigaddset(&set, SIGRTMIN + 2);
  (void)arg;
  long signal = sigwaitinfo(&set, &info);
  must(signal < 0 || (info.si_code == SI_QUEUE && info.si_value.sival_int == 31337));
  return signal;
}

static long take_soon(void* arg) {
  sigset_t set;
  struct timespec t = {0, 300000000};
  sigemptyset(&set);
  sigaddset(&set, SIGRTMIN + 3);
  (void)arg;
  return sigtimedwait(&set, NULL, &t);
}

int main(void) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGRTMIN + 2);
  sigaddset(&set, SIGRTMIN + 3);
  must(sigprocmask(SIG_BLOCK, &set, NULL) == 0);
  struct call patient, hurried;
  double start = seconds(CLOCK_MONOTONIC);
  call_in_thread(&hurried, SYS_rt_sigtimedwait, take_soon, NULL);
  call_in_child(&patient, SYS_rt_sigtimedwait, take, NULL);
  ready();
  still_inside(&patient);
  must(sigqueue(patient.pid, SIGRTMIN + 2, (union sigval){.sival_int = 31337}) == 0);
  must(end_of_call(&patient) == SIGRTMIN + 2);
  must(end_of_call(&hurried) == -1 && errno == EAGAIN && seconds(CLOCK_MONOTONIC) - start >= 0.3);
  pass();
}
