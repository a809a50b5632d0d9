/* select(2): it goes on waiting, with the sets it was given. */
#include "meanwhile.h"

#include <sys/select.h>

static int p[2], q[2];

static long wait_for(void* arg) {
  fd_set in;
  FD_ZERO(&in);
  FD_SET(p[0], &in);
  FD_SET(q[0], &in);
  long n = select((p[0] > q[0] ? p[0] : q[0]) + 1, &in, NULL, NULL, arg);
  must(n != 1 || (FD_ISSET(q[0], &in) && !FD_ISSET(p[0], &in)));
  return n;
}

int main(void) {
  must(pipe(p) == 0 && pipe(q) == 0);
  struct call c;
  call_in_child(&c, SYS_pselect6, wait_for, NULL);
  ready();
  still_inside(&c);
  must(write(q[1], "x", 1) == 1);
  must(end_of_call(&c) == 1);
  pass();
}
