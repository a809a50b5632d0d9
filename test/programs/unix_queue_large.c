/* unix(7): messages and streams as large as the buffers the sender chose (SO_SNDBUF) wait to be read: a datagram for a
 * name, a packet, and a stream whose writer has closed it. */
#include <sys/socket.h>
#include <sys/un.h>

#include "areas.h"

static void enlarge(int fd) {
  int size = 400 << 10; /* the kernel takes what it allows and doubles it */
  must(setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size) == 0);
}

static size_t send_most(int fd, char* bytes, size_t most, size_t step) {
  size_t sent = 0;
  while (sent < most) {
    ssize_t n = send(fd, bytes + sent, step < most - sent ? step : most - sent, MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN) break;
    must(n > 0);
    sent += (size_t)n;
  }
  return sent;
}

int main(void) {
  const size_t most = 1 << 20;
  char *bytes = malloc(most), *back = malloc(most);
  must(bytes != NULL && back != NULL);
  fill_pattern(bytes, most, 7);

  struct sockaddr_un name = {.sun_family = AF_UNIX, .sun_path = "mailbox"};
  int box = socket(AF_UNIX, SOCK_DGRAM, 0), writer = socket(AF_UNIX, SOCK_DGRAM, 0);
  must(box >= 0 && writer >= 0 && bind(box, (struct sockaddr*)&name, sizeof name) == 0);
  enlarge(writer);
  const size_t letter = 300 << 10;
  must(sendto(writer, bytes, letter, MSG_DONTWAIT, (struct sockaddr*)&name, sizeof name) == (ssize_t)letter);

  int packets[2], stream[2], closed[2];
  must(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, packets) == 0 &&
       socketpair(AF_UNIX, SOCK_STREAM, 0, stream) == 0 && socketpair(AF_UNIX, SOCK_STREAM, 0, closed) == 0);
  enlarge(packets[0]);
  enlarge(stream[0]);
  enlarge(closed[0]);
  must(send(packets[0], bytes + 8, letter, MSG_DONTWAIT) == (ssize_t)letter);
  const size_t in_stream = send_most(stream[0], bytes, most, 10000),
               in_closed = send_most(closed[0], bytes, most, 100000);
  must(in_stream > (200 << 10) && in_closed > (200 << 10) && close(closed[0]) == 0);

  ready();
  must(recv(box, back, most, MSG_DONTWAIT) == (ssize_t)letter && memcmp(back, bytes, letter) == 0);
  must(recv(packets[1], back, most, MSG_DONTWAIT) == (ssize_t)letter && memcmp(back, bytes + 8, letter) == 0);
  must(fcntl(stream[1], F_SETFL, O_NONBLOCK) == 0);
  size_t got = 0;
  for (ssize_t n; (n = recv(stream[1], back + got, most - got, 0)) > 0;) got += (size_t)n;
  must(got == in_stream && memcmp(back, bytes, got) == 0);
  must(recv(closed[1], back, most, MSG_WAITALL) == (ssize_t)in_closed && memcmp(back, bytes, in_closed) == 0);
  must(recv(closed[1], back, most, 0) == 0);
  pass();
}
