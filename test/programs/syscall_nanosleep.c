/* nanosleep(2): a sleep that is interrupted goes on with what remained of it, and says nothing. */
#include "meanwhile.h"

static double slept;

static long sleep_once(void* arg) {
  struct timespec request = {1, 0}, rest = {9, 9};
  double start = seconds(CLOCK_MONOTONIC);
  long result = syscall(SYS_nanosleep, &request, &rest);
  slept = seconds(CLOCK_MONOTONIC) - start;
  (void)arg;
  return result;
}

int main(void) {
  struct call c;
  watch_stalls();
  call_in_thread(&c, SYS_nanosleep, sleep_once, NULL);
  nap_ms(800);
  ready();
  must(end_of_call(&c) == 0);
  must(slept >= 1 && slept < 1.75 + stalled_seconds);
  pass();
}
