/* clock_nanosleep(2), relative: it goes on with what remained, in a process of one thread as in a thread. */
#include "meanwhile.h"

static long sleep_once(void* arg) {
  struct timespec request = {1, 0}, rest = {9, 9};
  double start = seconds(CLOCK_MONOTONIC);
  must(clock_nanosleep(*(clockid_t*)arg, 0, &request, &rest) == 0);
  return (long)((seconds(CLOCK_MONOTONIC) - start) * 1000);
}

int main(void) {
  struct call alone, thread;
  clockid_t real = CLOCK_REALTIME, monotonic = CLOCK_MONOTONIC;
  call_in_child(&alone, SYS_clock_nanosleep, sleep_once, &monotonic);
  call_in_thread(&thread, SYS_clock_nanosleep, sleep_once, &real);
  watch_stalls();
  nap_ms(800);
  ready();
  long ms = end_of_call(&alone);
  must(ms >= 1000 && (double)ms < 1750 + stalled_seconds * 1000);
  ms = end_of_call(&thread);
  must(ms >= 1000 && (double)ms < 1750 + stalled_seconds * 1000);
  pass();
}
