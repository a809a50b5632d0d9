/* poll(2) with a time limit: it ends with 0 when the time is over, not before and not with EINTR. (A poll
 * that is made again begins its time anew: it may take longer.) */
#include "meanwhile.h"

#include <poll.h>

static double took;

static long wait_for(void* arg) {
  struct pollfd p = {*(int*)arg, POLLIN, 0};
  double start = seconds(CLOCK_MONOTONIC);
  long n = poll(&p, 1, 300);
  took = seconds(CLOCK_MONOTONIC) - start;
  return n;
}

int main(void) {
  int p[2];
  must(pipe(p) == 0);
  struct call c;
  call_in_thread(&c, SYS_poll, wait_for, &p[0]);
  ready();
  must(end_of_call(&c) == 0);
  must(took >= 0.3 && took < 3);
  pass();
}
