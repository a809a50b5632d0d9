/* epoll_wait(2) with a time limit: 0 when the time is over, not EINTR, not earlier. (It may take longer: a
 * wait that is made again begins its time anew.) */
#include "meanwhile.h"

#include <sys/epoll.h>

static double took;

static long wait_for(void* arg) {
  struct epoll_event e;
  double start = seconds(CLOCK_MONOTONIC);
  long n = epoll_wait(*(int*)arg, &e, 1, 300);
  took = seconds(CLOCK_MONOTONIC) - start;
  return n;
}

int main(void) {
  int e = epoll_create1(0);
  must(e >= 0);
  struct call c;
  call_in_thread(&c, SYS_epoll_wait, wait_for, &e);
  ready();
  must(end_of_call(&c) == 0);
  must(took >= 0.3 && took < 3);
  pass();
}
