/* socketpair(2): streams, datagrams and packets with what waits in both directions, message by message, and
 * end of file where a side was shut down or closed. */
#include "behaviour.h"

#include <sys/socket.h>

static char text[300000], much[300000];

static void expect(int fd, const char* what, size_t n) {
  ssize_t got = recv(fd, text, sizeof text, MSG_DONTWAIT);
  if (got != (ssize_t)n || memcmp(text, what, n) != 0)
    fail("got %zd bytes, expected %zu '%.10s'", got, n, what);
}

int main(void) {
  int s[2], d[2], q[2], half[2], closed[2], odd[2];
  must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, s) == 0 &&
       socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, d) == 0);
  must(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, q) == 0 && socketpair(AF_UNIX, SOCK_STREAM, 0, half) == 0);
  must(socketpair(AF_UNIX, SOCK_STREAM, 0, closed) == 0 && socketpair(AF_UNIX, SOCK_STREAM, 0, odd) == 0);
  for (size_t i = 0; i < sizeof much; i++) much[i] = (char)(i * 7 >> 2);
  must(write(s[0], "from 0", 6) == 6 && write(s[1], much, 100000) == 100000);
  must(send(d[0], "one", 3, 0) == 3 && send(d[0], "three", 5, 0) == 5 && send(d[1], "back", 4, 0) == 4);
  must(send(q[0], "a", 1, 0) == 1 && send(q[0], much, 50000, 0) == 50000 && send(q[1], "back", 4, 0) == 4);
  must(write(half[0], "last", 4) == 4 && shutdown(half[0], SHUT_WR) == 0 && write(half[1], "still", 5) == 5);
  must(write(closed[1], "will", 4) == 4 && close(closed[1]) == 0);
  must(write(odd[0], "0123456789", 10) == 10 && read(odd[1], text, 3) == 3);
  ready();
  must(fcntl(s[0], F_GETFD) == FD_CLOEXEC && (fcntl(d[1], F_GETFL) & O_NONBLOCK) != 0 &&
       fcntl(q[0], F_GETFD) == 0);
  expect(s[1], "from 0", 6);
  expect(s[0], much, 100000);
  expect(d[1], "one", 3);
  expect(d[1], "three", 5);
  expect(d[0], "back", 4);
  must(recv(d[0], text, 9, 0) == -1 && errno == EAGAIN);
  expect(q[1], "a", 1);
  expect(q[1], much, 50000);
  expect(q[0], "back", 4);
  expect(half[1], "last", 4);
  expect(half[1], "", 0);
  expect(half[0], "still", 5);
  must(write(half[1], "more", 4) == 4 && read(half[0], text, 9) == 4);
  must(signal(SIGPIPE, SIG_IGN) != SIG_ERR && write(half[0], "x", 1) == -1 && errno == EPIPE);
  expect(closed[0], "will", 4);
  expect(closed[0], "", 0);
  must(write(closed[0], "x", 1) == -1 && errno == EPIPE);
  expect(odd[1], "3456789", 7);
  must(write(s[0], "new", 3) == 3 && read(s[1], text, 9) == 3 && close(s[1]) == 0 &&
       read(s[0], text, 1) == 0);
  pass();
}
