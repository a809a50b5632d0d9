/* nanosleep(2) without a place for the remainder: how much was left is not to be known, so it may take
 * longer; but it neither fails nor ends early. */
#include "meanwhile.h"

static double slept;

static long sleep_once(void* arg) {
  struct timespec request = {0, 250000000};
  double start = seconds(CLOCK_MONOTONIC);
  long result = syscall(SYS_nanosleep, &request, NULL);
  slept = seconds(CLOCK_MONOTONIC) - start;
  (void)arg;
  return result;
}

int main(void) {
  struct call c;
  call_in_thread(&c, SYS_nanosleep, sleep_once, NULL);
  ready();
  must(end_of_call(&c) == 0);
  must(slept >= 0.25);
  pass();
}
