/* recv(2) with SO_RCVTIMEO: a stop alone makes the kernel return EINTR from it (signal(7)). The program sees
 * the data that comes, or EAGAIN when the time is over. */
#include "meanwhile.h"

#include <sys/socket.h>
#include <sys/time.h>

static long get(void* arg) {
  char bytes[16];
  double start = seconds(CLOCK_MONOTONIC);
  long n = recv(*(int*)arg, bytes, sizeof bytes, 0);
  int error = errno;
  must(n != -1 || seconds(CLOCK_MONOTONIC) - start >= 0.29);
  errno = error;
  return n;
}

int main(void) {
  int s[2], d[2];
  must(socketpair(AF_UNIX, SOCK_STREAM, 0, s) == 0 && socketpair(AF_UNIX, SOCK_STREAM, 0, d) == 0);
  struct timeval brief = {0, 300000}, ample = {20, 0};
  must(setsockopt(s[0], SOL_SOCKET, SO_RCVTIMEO, &brief, sizeof brief) == 0);
  must(setsockopt(d[0], SOL_SOCKET, SO_RCVTIMEO, &ample, sizeof ample) == 0);
  struct call empty, fed;
  call_in_thread(&empty, SYS_recvfrom, get, &s[0]);
  call_in_thread(&fed, SYS_recvfrom, get, &d[0]);
  ready();
  still_inside(&fed);
  must(write(d[1], "data", 4) == 4);
  must(end_of_call(&fed) == 4);
  must(end_of_call(&empty) == -1 && errno == EAGAIN);
  pass();
}
