/* pipe(7): size, packet mode, O_NONBLOCK of either end alone, and which end is which. */
#include "behaviour.h"

int main(void) {
  int a[2], b[2], packets[2];
  must(pipe(a) == 0 && pipe2(b, O_CLOEXEC) == 0 && pipe2(packets, O_DIRECT) == 0);
  must(fcntl(a[0], F_SETPIPE_SZ, 4096) == 4096 && fcntl(b[1], F_SETPIPE_SZ, 262144) == 262144);
  must(fcntl(a[0], F_SETFL, O_NONBLOCK) == 0 && fcntl(b[1], F_SETFL, O_NONBLOCK) == 0);
  must(dup2(b[1], 50) == 50);
  ready();
  must(fcntl(a[1], F_GETPIPE_SZ) == 4096 && fcntl(b[0], F_GETPIPE_SZ) == 262144);
  must((fcntl(a[0], F_GETFL) & O_NONBLOCK) != 0 && (fcntl(a[1], F_GETFL) & O_NONBLOCK) == 0);
  must((fcntl(b[0], F_GETFL) & O_NONBLOCK) == 0 && (fcntl(50, F_GETFL) & O_NONBLOCK) != 0);
  must(fcntl(b[0], F_GETFD) == FD_CLOEXEC && fcntl(50, F_GETFD) == 0 && fcntl(b[1], F_GETFD) == FD_CLOEXEC);
  char c[10];
  must(read(a[0], c, 1) == -1 && errno == EAGAIN && write(a[0], "x", 1) == -1 && errno == EBADF);
  must(write(50, "one", 3) == 3 && write(b[1], "two", 3) == 3 && read(b[0], c, 10) == 6);
  must((fcntl(packets[1], F_GETFL) & O_DIRECT) != 0);
  must(write(packets[1], "one", 3) == 3 && write(packets[1], "two", 3) == 3);
  must(read(packets[0], c, 10) == 3 && read(packets[0], c, 10) == 3);
  must(close(packets[0]) == 0 && signal(SIGPIPE, SIG_IGN) != SIG_ERR);
  must(write(packets[1], "x", 1) == -1 && errno == EPIPE);
  must(close(b[1]) == 0 && close(50) == 0 && read(b[0], c, 1) == 0);
  pass();
}
