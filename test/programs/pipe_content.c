/* pipe(7): what waits in a pipe, its size, both ends' flags, and end of file once the last writer is gone. */
#include "behaviour.h"

int main(void) {
  int p[2], closed[2];
  must(pipe2(p, O_CLOEXEC) == 0 && pipe(closed) == 0);
  must(fcntl(p[0], F_SETPIPE_SZ, 1 << 17) == 1 << 17);
  must(fcntl(p[0], F_SETFL, O_NONBLOCK) == 0);
  static char out[100000], in[100000];
  for (size_t i = 0; i < sizeof out; i++) out[i] = (char)(i * 7 + i / 251);
  must(write(p[1], out, sizeof out) == sizeof out);
  must(write(closed[1], "last words", 10) == 10 && close(closed[1]) == 0);
  ready();
  must(fcntl(p[0], F_GETPIPE_SZ) == 1 << 17);
  must((fcntl(p[0], F_GETFL) & O_NONBLOCK) != 0 && (fcntl(p[1], F_GETFL) & O_NONBLOCK) == 0);
  must((fcntl(p[0], F_GETFD) & FD_CLOEXEC) != 0 && (fcntl(closed[0], F_GETFD) & FD_CLOEXEC) == 0);
  size_t got = 0;
  while (got < sizeof in) {
    ssize_t n = read(p[0], in + got, sizeof in - got);
    must(n > 0);
    got += (size_t)n;
  }
  must(memcmp(in, out, sizeof in) == 0 && read(p[0], in, 1) == -1 && errno == EAGAIN);
  must(read(closed[0], in, 100) == 10 && memcmp(in, "last words", 10) == 0);
  must(read(closed[0], in, 100) == 0);
  pass();
}
