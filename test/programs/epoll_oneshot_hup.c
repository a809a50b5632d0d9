/* epoll(7): a one-shot item that was used up reports nothing until it is armed again, not even that the other
 * side has gone. */
#include "behaviour.h"

#include <sys/epoll.h>

int main(void) {
  int p[2], ep = epoll_create1(0);
  struct epoll_event e = {.events = EPOLLIN | EPOLLONESHOT, .data.u64 = 7}, got;
  must(pipe(p) == 0 && epoll_ctl(ep, EPOLL_CTL_ADD, p[0], &e) == 0);
  must(write(p[1], "x", 1) == 1 && epoll_wait(ep, &got, 1, 0) == 1);
  must(close(p[1]) == 0 && epoll_wait(ep, &got, 1, 0) == 0);
  ready();
  must(epoll_wait(ep, &got, 1, 20) == 0);
  must(epoll_ctl(ep, EPOLL_CTL_MOD, p[0], &e) == 0 && epoll_wait(ep, &got, 1, 0) == 1);
  must(got.data.u64 == 7 && got.events == (EPOLLIN | EPOLLHUP));
  pass();
}
