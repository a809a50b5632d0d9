/* clock_nanosleep(2) with TIMER_ABSTIME: it wakes at that time of the clock, whatever happened until then. */
#include "meanwhile.h"

struct until {
  clockid_t clock;
  double then;
};

static long sleep_until(void* arg) {
  struct until* u = arg;
  struct timespec t = {(time_t)u->then, (long)((u->then - (double)(time_t)u->then) * 1e9)};
  must(clock_nanosleep(u->clock, TIMER_ABSTIME, &t, NULL) == 0);
  return (long)((seconds(u->clock) - u->then) * 1e6);
}

int main(void) {
  struct call c[3];
  struct until u[3] = {{CLOCK_MONOTONIC, 0}, {CLOCK_BOOTTIME, 0}, {CLOCK_REALTIME, 0}};
  for (int i = 0; i < 3; i++) {
    u[i].then = seconds(u[i].clock) + 0.4;
    call_in_thread(&c[i], SYS_clock_nanosleep, sleep_until, &u[i]);
  }
  watch_stalls();
  ready();
  for (int i = 0; i < 3; i++) {
    long late_us = end_of_call(&c[i]);
    must(late_us > -2 && (double)late_us < 500000 + stalled_seconds * 1e6);
  }
  pass();
}
