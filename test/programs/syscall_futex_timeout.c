/* futex(2), FUTEX_WAIT_BITSET with a time: it is a moment of the monotonic clock, and the wait ends then with
 * ETIMEDOUT. FUTEX_WAIT with a relative time ends so too, though perhaps later. */
#include "meanwhile.h"

#include <linux/futex.h>

static int word;
static double end;

static long wait_until(void* arg) {
  struct timespec t = {(time_t)end, (long)((end - (double)(time_t)end) * 1e9)};
  (void)arg;
  return syscall(SYS_futex, &word, FUTEX_WAIT_BITSET_PRIVATE, 0, &t, NULL, FUTEX_BITSET_MATCH_ANY);
}

static long wait_for(void* arg) {
  struct timespec t = {0, 300000000};
  (void)arg;
  return syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, &t, NULL, 0);
}

int main(void) {
  struct call absolute, relative;
  double start = seconds(CLOCK_MONOTONIC);
  end = start + 0.4;
  call_in_thread(&absolute, SYS_futex, wait_until, NULL);
  call_in_thread(&relative, SYS_futex, wait_for, NULL);
  ready();
  must(end_of_call(&absolute) == -1 && errno == ETIMEDOUT);
  double late = seconds(CLOCK_MONOTONIC) - end;
  must(late > -1e-5 && late < 5);
  must(end_of_call(&relative) == -1 && errno == ETIMEDOUT);
  must(seconds(CLOCK_MONOTONIC) - start >= 0.3);
  pass();
}
