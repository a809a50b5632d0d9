/* dup2(2): many descriptors, at high and scattered numbers, with holes between them, and with 0 closed. */
#include "behaviour.h"

#include <sys/resource.h>

int main(void) {
  struct rlimit most = {4096, 4096};
  must(setrlimit(RLIMIT_NOFILE, &most) == 0);
  int fd = open(scratch("file"), O_RDWR | O_CREAT, 0600);
  must(fd >= 0 && close(0) == 0);
  for (int i = 3; i < 4000; i += 1 + i % 7) must(dup3(fd, i == fd ? i + 1 : i, i % 2 ? O_CLOEXEC : 0) >= 0);
  must(dup3(fd, 4095, O_CLOEXEC) == 4095);
  static signed char was[4096];
  for (int i = 0; i < 4096; i++) was[i] = (signed char)fcntl(i, F_GETFD);
  ready();
  for (int i = 0; i < 4096; i++) {
    int now = fcntl(i, F_GETFD);
    if (now != was[i]) fail("descriptor %d has flags %d, had %d", i, now, was[i]);
  }
  must(open("/dev/null", O_RDONLY) == 0);
  pass();
}
