/* The memory devices of /dev: null, zero, full, random and urandom do what they did, with their flags. */
#include "behaviour.h"

int main(void) {
  int null = open("/dev/null", O_RDWR | O_APPEND), zero = open("/dev/zero", O_RDONLY | O_NONBLOCK);
  int full = open("/dev/full", O_WRONLY), random = open("/dev/random", O_RDONLY),
      urandom = open("/dev/urandom", O_RDWR);
  must(null >= 0 && zero >= 0 && full >= 0 && random >= 0 && urandom >= 0);
  const int fds[] = {null, zero, full, random, urandom};
  int flags[5];
  struct stat before[5], st;
  for (int i = 0; i < 5; i++)
    must((flags[i] = fcntl(fds[i], F_GETFL)) >= 0 && fstat(fds[i], &before[i]) == 0);
  ready();
  for (int i = 0; i < 5; i++) {
    must(fcntl(fds[i], F_GETFL) == flags[i] && fstat(fds[i], &st) == 0 && st.st_rdev == before[i].st_rdev);
  }
  unsigned char b[32] = {1}, none[32] = {0};
  must(write(null, b, 32) == 32 && read(null, b, 32) == 0);
  must(read(zero, b, 32) == 32 && memcmp(b, none, 32) == 0);
  must(write(full, b, 1) == -1 && errno == ENOSPC);
  must(read(random, b, 32) == 32 && memcmp(b, none, 32) != 0);
  must(read(urandom, b, 32) == 32 && memcmp(b, none, 32) != 0);
  pass();
}
