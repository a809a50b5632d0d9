/* setitimer(2): a periodic timer whose signal is blocked and waits comes again once it is taken. */
#include "behaviour.h"

#include <sys/time.h>

int main(void) {
  sigset_t set;
  struct itimerval often = {{0, 5000}, {0, 5000}}, now;
  struct timespec ample = {20, 0};
  sigemptyset(&set);
  sigaddset(&set, SIGALRM);
  must(sigprocmask(SIG_BLOCK, &set, NULL) == 0 && setitimer(ITIMER_REAL, &often, NULL) == 0);
  nap_ms(20);
  ready();
  must(getitimer(ITIMER_REAL, &now) == 0 && now.it_interval.tv_usec == 5000);
  for (int i = 0; i < 3; i++) must(sigtimedwait(&set, NULL, &ample) == SIGALRM);
  pass();
}
