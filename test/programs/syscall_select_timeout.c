/* select(2) with a time limit: it ends with 0 when the time is over; Linux writes what remained into the
 * limit, and a select that is made again waits for the remainder only. */
#include "meanwhile.h"

#include <sys/select.h>

static double took;

static long wait_for(void* arg) {
  struct timeval t = {1, 0};
  fd_set in;
  FD_ZERO(&in);
  FD_SET(*(int*)arg, &in);
  double start = seconds(CLOCK_MONOTONIC);
  long n = select(*(int*)arg + 1, &in, NULL, NULL, &t);
  took = seconds(CLOCK_MONOTONIC) - start;
  must(n != 0 || (t.tv_sec == 0 && t.tv_usec == 0));
  return n;
}

int main(void) {
  int p[2];
  must(pipe(p) == 0);
  struct call c;
  watch_stalls();
  call_in_thread(&c, SYS_pselect6, wait_for, &p[0]);
  nap_ms(800);
  ready();
  must(end_of_call(&c) == 0);
  must(took >= 1 && took < 1.75 + stalled_seconds);
  pass();
}
