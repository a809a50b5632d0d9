/* timerfd_settime(2): an absolute timer of the wall clock keeps its hour, and TFD_TIMER_CANCEL_ON_SET; one of
 * the monotonic clock comes when that clock, which goes on from where it was, says so. */
#include "meanwhile.h"

#include <poll.h>
#include <stdint.h>
#include <sys/timerfd.h>

static long settime_flags(int fd) {
  char path[64], text[512];
  snprintf(path, sizeof path, "/proc/self/fdinfo/%d", fd);
  must(read_text(path, text, sizeof text) > 0);
  return strtol(strstr(text, "settime flags:") + 14, NULL, 8);
}

int main(void) {
  int wall = timerfd_create(CLOCK_REALTIME, 0), cancel = timerfd_create(CLOCK_REALTIME, TFD_NONBLOCK);
  int own = timerfd_create(CLOCK_MONOTONIC, 0);
  struct itimerspec t = {{0, 0}, {0, 0}}, hour = {{3600, 0}, {time(NULL) + 3600, 0}}, now;
  must(clock_gettime(CLOCK_MONOTONIC, &t.it_value) == 0);
  t.it_value.tv_nsec += 250000000;
  if (t.it_value.tv_nsec >= 1000000000) t.it_value.tv_sec++, t.it_value.tv_nsec -= 1000000000;
  must(timerfd_settime(own, TFD_TIMER_ABSTIME, &t, NULL) == 0);
  must(timerfd_settime(wall, TFD_TIMER_ABSTIME, &hour, NULL) == 0);
  must(timerfd_settime(cancel, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, &hour, NULL) == 0);
  ready();
  must(settime_flags(wall) == 1 && settime_flags(cancel) == 3);
  double before = seconds(CLOCK_REALTIME);
  must(timerfd_gettime(wall, &now) == 0 && now.it_interval.tv_sec == 3600);
  double after = seconds(CLOCK_REALTIME);
  double late =
      (double)now.it_value.tv_sec + (double)now.it_value.tv_nsec / 1e9 - (double)hour.it_value.tv_sec;
  if (late + after < -0.01 || late + before > 0.01)
    fail("it comes %f to %f s late", late + before, late + after);
  uint64_t n;
  must(read(own, &n, 8) == 8 && n == 1);
  late = seconds(CLOCK_MONOTONIC) - ((double)t.it_value.tv_sec + (double)t.it_value.tv_nsec / 1e9);
  if (late < 0) fail("it came %f s early", -late);
  pass();
}
