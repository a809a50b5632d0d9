/* poll(2) without a time limit, in a process of one thread and in a thread: it goes on waiting and reports
 * what comes. */
#include "meanwhile.h"

#include <poll.h>

static long wait_for(void* arg) {
  struct pollfd p = {*(int*)arg, POLLIN, 0};
  long n = poll(&p, 1, -1);
  must(n != 1 || p.revents == POLLIN);
  return n;
}

int main(void) {
  int p[2];
  must(pipe(p) == 0);
  struct call child, thread;
  call_in_child(&child, SYS_poll, wait_for, &p[0]);
  call_in_thread(&thread, SYS_poll, wait_for, &p[0]);
  ready();
  still_inside(&child);
  still_inside(&thread);
  must(write(p[1], "x", 1) == 1);
  must(end_of_call(&child) == 1);
  must(end_of_call(&thread) == 1);
  pass();
}
