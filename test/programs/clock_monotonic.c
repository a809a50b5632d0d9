/* clock_gettime(2): CLOCK_MONOTONIC and CLOCK_BOOTTIME go on from where they were: never back, and not over
 * the time the program spent in an image. */
#include "behaviour.h"

static double now(clockid_t clock) {
  struct timespec t;
  must(clock_gettime(clock, &t) == 0);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

int main(void) {
  double monotonic = now(CLOCK_MONOTONIC), boot = now(CLOCK_BOOTTIME), real = now(CLOCK_REALTIME);
  ready();
  double passed = now(CLOCK_MONOTONIC) - monotonic, booted = now(CLOCK_BOOTTIME) - boot,
         really = now(CLOCK_REALTIME) - real;
  must(passed >= 0 && booted >= 0);
  must(passed < really + 0.5 && booted < really + 0.5);
  must(passed - booted < 0.5 && booted - passed < 0.5);
  pass();
}
