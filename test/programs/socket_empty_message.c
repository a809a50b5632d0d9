/* unix(7): an empty datagram is a message as well, and those behind it are not lost. */
#include "behaviour.h"

#include <sys/socket.h>

int main(void) {
  int d[2], q[2];
  char text[8];
  must(socketpair(AF_UNIX, SOCK_DGRAM, 0, d) == 0 && socketpair(AF_UNIX, SOCK_SEQPACKET, 0, q) == 0);
  must(send(d[0], "a", 1, 0) == 1 && send(d[0], "", 0, 0) == 0 && send(d[0], "", 0, 0) == 0 &&
       send(d[0], "bc", 2, 0) == 2);
  must(send(q[0], "", 0, 0) == 0 && send(q[0], "z", 1, 0) == 1);
  ready();
  must(recv(d[1], text, 8, MSG_DONTWAIT) == 1 && recv(d[1], text, 8, MSG_DONTWAIT) == 0);
  must(recv(d[1], text, 8, MSG_DONTWAIT) == 0 && recv(d[1], text, 8, MSG_DONTWAIT) == 2 && text[0] == 'b');
  must(recv(d[1], text, 8, MSG_DONTWAIT) == -1 && errno == EAGAIN);
  must(recv(q[1], text, 8, MSG_DONTWAIT) == 0 && recv(q[1], text, 8, MSG_DONTWAIT) == 1 && text[0] == 'z');
  pass();
}
