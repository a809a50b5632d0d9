/* epoll(7): level- and edge-triggered, one-shot (used and unused) and exclusive items, with their 64 bits of
 * data. */
#include "behaviour.h"

#include <stdint.h>
#include <sys/epoll.h>

enum { kinds = 6 };
static int ep, p[kinds][2];

static void add(int i, uint32_t events) {
  struct epoll_event e = {.events = events, .data.u64 = 0x1234567800000000u + (unsigned)i};
  must(pipe(p[i]) == 0 && epoll_ctl(ep, EPOLL_CTL_ADD, p[i][0], &e) == 0);
}

/* A bit for each item that is reported now. */
static unsigned reported(void) {
  struct epoll_event e[16];
  unsigned bits = 0;
  int n = epoll_wait(ep, e, 16, 0);
  must(n >= 0);
  for (int i = 0; i < n; i++) {
    must(e[i].data.u64 >> 32 == 0x12345678 && e[i].events == EPOLLIN);
    bits |= 1u << (e[i].data.u64 & 0xff);
  }
  return bits;
}

int main(void) {
  must((ep = epoll_create1(EPOLL_CLOEXEC)) >= 0);
  add(0, EPOLLIN);
  add(1, EPOLLIN | EPOLLET);
  add(2, EPOLLIN | EPOLLONESHOT); /* will be used up */
  add(3, EPOLLIN | EPOLLONESHOT);
  add(4, EPOLLIN | EPOLLEXCLUSIVE);
  add(5, EPOLLIN | EPOLLET | EPOLLONESHOT);
  must(write(p[2][1], "x", 1) == 1 && reported() == 1u << 2 && reported() == 0);
  must(write(p[0][1], "x", 1) == 1 && reported() == 1u << 0);
  ready();
  must(fcntl(ep, F_GETFD) == FD_CLOEXEC);
  must(reported() == 1u << 0);
  for (int i = 1; i < kinds; i++) must(write(p[i][1], "x", 1) == 1);
  unsigned first = reported(), second = reported();
  if (first != 0x3b || second != 0x11) fail("reported %x, then %x", first, second);
  must(write(p[1][1], "x", 1) == 1 && write(p[5][1], "x", 1) == 1 && reported() == 0x13);
  struct epoll_event e = {.events = EPOLLIN, .data.u64 = 0x1234567800000002u};
  must(epoll_ctl(ep, EPOLL_CTL_MOD, p[2][0], &e) == 0 && reported() == 0x15);
  must(epoll_ctl(ep, EPOLL_CTL_ADD, p[3][0], &e) == -1 && errno == EEXIST);
  must(epoll_ctl(ep, EPOLL_CTL_DEL, p[0][0], &e) == 0 && reported() == 0x14);
  pass();
}
