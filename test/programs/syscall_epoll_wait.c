/* epoll_wait(2) without a time limit: a stop alone makes the kernel return EINTR from it (signal(7)); the
 * program must not see that. */
#include "meanwhile.h"

#include <sys/epoll.h>

static long wait_for(void* arg) {
  struct epoll_event e = {0};
  long n = epoll_wait(*(int*)arg, &e, 1, -1);
  must(n != 1 || (e.events == EPOLLIN && e.data.u64 == 0x123456789abcdef));
  return n;
}

int main(void) {
  int p[2], e = epoll_create1(0);
  must(e >= 0 && pipe(p) == 0);
  struct epoll_event event = {.events = EPOLLIN, .data.u64 = 0x123456789abcdef};
  must(epoll_ctl(e, EPOLL_CTL_ADD, p[0], &event) == 0);
  struct call thread, child;
  call_in_thread(&thread, SYS_epoll_wait, wait_for, &e);
  call_in_child(&child, SYS_epoll_wait, wait_for, &e);
  ready();
  still_inside(&thread);
  still_inside(&child);
  must(write(p[1], "x", 1) == 1);
  must(end_of_call(&thread) == 1);
  must(end_of_call(&child) == 1);
  pass();
}
