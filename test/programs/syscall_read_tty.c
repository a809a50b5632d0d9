/* read(2) from a terminal: a child waits for a line, in canonical mode, and gets it. */
#include "meanwhile.h"

static long get(void* arg) {
  char line[64];
  long n = read(*(int*)arg, line, sizeof line);
  must(n != 6 || memcmp(line, "typed\n", 6) == 0);
  return n;
}

int main(void) {
  int master = posix_openpt(O_RDWR | O_NOCTTY);
  must(master >= 0 && grantpt(master) == 0 && unlockpt(master) == 0);
  int slave = open(ptsname(master), O_RDWR | O_NOCTTY);
  must(slave >= 0);
  struct call c;
  call_in_child(&c, SYS_read, get, &slave);
  ready();
  still_inside(&c);
  must(write(master, "typed", 5) == 5);
  still_inside(&c);
  must(write(master, "\n", 1) == 1);
  must(end_of_call(&c) == 6);
  pass();
}
