/* read(2) from an empty pipe: a child and a thread wait on, and get the bytes and then the end of file. */
#include "meanwhile.h"

static long get(void* arg) {
  char bytes[16];
  long n = read(*(int*)arg, bytes, sizeof bytes);
  must(n != 5 || memcmp(bytes, "hello", 5) == 0);
  return n;
}

int main(void) {
  int p[2], q[2];
  must(pipe2(p, O_CLOEXEC) == 0 && pipe2(q, O_CLOEXEC) == 0);
  struct call child, thread;
  call_in_child(&child, SYS_read, get, &p[0]);
  call_in_thread(&thread, SYS_read, get, &q[0]);
  ready();
  still_inside(&child);
  still_inside(&thread);
  must(write(p[1], "hello", 5) == 5 && close(q[1]) == 0);
  must(end_of_call(&child) == 5);
  /* Only now: the child held that end too. */
  must(end_of_call(&thread) == 0);
  pass();
}
