/* epoll(7): an epoll in an epoll, watched descriptors of every kind, a dup'ed one under both its numbers, and
 * one whose number was closed while a dup keeps it. */
#include "behaviour.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>

static int watch(int ep, int fd, int number) {
  struct epoll_event e = {.events = EPOLLIN, .data.fd = number};
  return epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e);
}

static int next(int ep) {
  struct epoll_event e = {0};
  int n = epoll_wait(ep, &e, 1, 100);
  must(n >= 0);
  return n == 0 ? -1 : e.data.fd;
}

int main(void) {
  int outer = epoll_create1(0), inner = epoll_create1(0), event = eventfd(0, EFD_NONBLOCK), pair[2], gone[2];
  int timer = timerfd_create(CLOCK_MONOTONIC, 0);
  must(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0 && pipe(gone) == 0);
  int twice = dup(event), kept = dup(gone[0]);
  must(watch(outer, inner, 1) == 0 && watch(inner, event, 2) == 0 && watch(inner, twice, 3) == 0);
  must(watch(outer, pair[0], 4) == 0 && watch(outer, timer, 5) == 0 && watch(outer, gone[0], 6) == 0);
  must(close(gone[0]) == 0 && open("/dev/null", O_RDONLY) == gone[0]); /* the number is another's now */
  ready();
  must(write(pair[1], "x", 1) == 1 && next(outer) == 4);
  char text[8];
  must(read(pair[0], text, 8) == 1);
  must(eventfd_write(event, 1) == 0 && next(outer) == 1);
  struct epoll_event e[4];
  must(epoll_wait(inner, e, 4, 0) == 2 && e[0].data.fd + e[1].data.fd == 5);
  eventfd_t count;
  must(eventfd_read(twice, &count) == 0);
  struct itimerspec soon = {.it_value.tv_nsec = 1};
  must(timerfd_settime(timer, 0, &soon, NULL) == 0 && next(outer) == 5 && read(timer, text, 8) == 8);
  must(write(gone[1], "x", 1) == 1 && next(outer) == 6 && read(kept, text, 8) == 1);
  must(next(outer) == -1);
  pass();
}
