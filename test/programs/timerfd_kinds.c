/* timerfd_create(2): periodic and one-shot timers of each clock go on with what remains; what expired and was
 * not read is still to be read; a disarmed one stays so. */
#include "meanwhile.h"

#include <poll.h>
#include <stdint.h>
#include <sys/timerfd.h>

static int arm(clockid_t clock, long value_ms, long interval_ms) {
  struct itimerspec t = {{interval_ms / 1000, interval_ms % 1000 * 1000000},
                         {value_ms / 1000, value_ms % 1000 * 1000000}};
  int fd = timerfd_create(clock, TFD_NONBLOCK);
  must(fd >= 0 && timerfd_settime(fd, 0, &t, NULL) == 0);
  return fd;
}

int main(void) {
  const clockid_t clocks[] = {CLOCK_MONOTONIC, CLOCK_BOOTTIME, CLOCK_REALTIME};
  int far[3], period[3];
  for (int i = 0; i < 3; i++) far[i] = arm(clocks[i], 60000, 7000), period[i] = arm(clocks[i], 10, 10);
  int expired = arm(CLOCK_MONOTONIC, 1, 0), off = timerfd_create(CLOCK_MONOTONIC, 0);
  double began = seconds(CLOCK_MONOTONIC);
  nap_ms(30);
  uint64_t n = 0;
  struct itimerspec t;
  ready();
  double passed = seconds(CLOCK_MONOTONIC) - began;
  for (int i = 0; i < 3; i++) {
    must(timerfd_gettime(far[i], &t) == 0 && t.it_interval.tv_sec == 7);
    double left = (double)t.it_value.tv_sec + (double)t.it_value.tv_nsec / 1e9;
    if (left > 60 - passed + 0.5 || left < 60 - passed - 1.5)
      fail("clock %d: %f s left after %f", i, left, passed);
    must(read(far[i], &n, 8) == -1 && errno == EAGAIN);
    must(read(period[i], &n, 8) == 8);
    if (n < 2 || n > (uint64_t)(passed * 100) + 150)
      fail("clock %d: %lu ticks in %f s", i, (unsigned long)n, passed);
    struct pollfd p = {period[i], POLLIN, 0};
    must(poll(&p, 1, 20000) == 1);
  }
  must(read(expired, &n, 8) == 8 && n == 1 && read(expired, &n, 8) == -1 && errno == EAGAIN);
  must(timerfd_gettime(off, &t) == 0 && t.it_value.tv_sec == 0 && t.it_value.tv_nsec == 0);
  pass();
}
