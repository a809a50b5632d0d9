/* timer_getoverrun(2): a timer whose signal is blocked: one signal waits, and when it is taken it says how
 * often the timer came; the timer goes on. */
#include "meanwhile.h"

int main(void) {
  sigset_t set;
  struct sigevent e = {
      .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN + 2, .sigev_value.sival_int = 99};
  struct itimerspec t = {{0, 5000000}, {0, 5000000}};
  timer_t id;
  sigemptyset(&set);
  sigaddset(&set, SIGRTMIN + 2);
  must(sigprocmask(SIG_BLOCK, &set, NULL) == 0 && timer_create(CLOCK_MONOTONIC, &e, &id) == 0 &&
       timer_settime(id, 0, &t, NULL) == 0);
  nap_ms(30);
  ready();
  siginfo_t info;
  struct timespec ample = {20, 0}, zero = {0, 0};
  must(sigtimedwait(&set, &info, &zero) == SIGRTMIN + 2);
  must(info.si_code == SI_TIMER && info.si_value.sival_int == 99);
  for (int i = 0; i < 3; i++) {
    must(sigtimedwait(&set, &info, &ample) == SIGRTMIN + 2);
    must(info.si_code == SI_TIMER && info.si_value.sival_int == 99);
  }
  must(timer_delete(id) == 0);
  while (sigtimedwait(&set, &info, &zero) > 0) {
  }
  pass();
}
