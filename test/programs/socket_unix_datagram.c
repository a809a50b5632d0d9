/* unix(7): datagram sockets with names: what waits in them, whom they are connected to, and that they are
 * reached by name afterwards; the sender's name of what waits. */
#include "behaviour.h"

#include <stddef.h>
#include <sys/socket.h>
#include <sys/un.h>

static socklen_t name(struct sockaddr_un* a, const char* what) {
  memset(a, 0, sizeof *a);
  a->sun_family = AF_UNIX;
  return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1) +
         (socklen_t)snprintf(a->sun_path + 1, 100, "socket_unix_datagram.%s.%d", what, (int)getpid());
}

int main(void) {
  struct sockaddr_un log, client, file = {.sun_family = AF_UNIX}, from;
  socklen_t log_size = name(&log, "log"), client_size = name(&client, "client"), n = sizeof from;
  snprintf(file.sun_path, sizeof file.sun_path, "%s", scratch("dgram"));
  int server = socket(AF_UNIX, SOCK_DGRAM, 0), sender = socket(AF_UNIX, SOCK_DGRAM, 0),
      named = socket(AF_UNIX, SOCK_DGRAM, 0);
  int on_path = socket(AF_UNIX, SOCK_DGRAM, 0);
  must(bind(server, (struct sockaddr*)&log, log_size) == 0 &&
       bind(named, (struct sockaddr*)&client, client_size) == 0);
  must(bind(on_path, (struct sockaddr*)&file, sizeof file) == 0);
  must(connect(sender, (struct sockaddr*)&log, log_size) == 0 && send(sender, "first", 5, 0) == 5);
  must(sendto(sender, "path", 4, 0, (struct sockaddr*)&file, sizeof file) == 4);
  must(sendto(named, "second", 6, 0, (struct sockaddr*)&log, log_size) == 6);
  ready();
  char text[16];
  must(recv(server, text, 16, MSG_DONTWAIT) == 5 && memcmp(text, "first", 5) == 0);
  must(recvfrom(server, text, 16, MSG_DONTWAIT, (struct sockaddr*)&from, &n) == 6 &&
       memcmp(text, "second", 6) == 0);
  if (n != client_size || memcmp(&from, &client, n) != 0)
    fail("the sender has a name of %u bytes, not %u", n, client_size);
  must(recv(on_path, text, 16, MSG_DONTWAIT) == 4);
  must(send(sender, "more", 4, 0) == 4 && recv(server, text, 16, MSG_DONTWAIT) == 4);
  must(sendto(server, "back", 4, 0, (struct sockaddr*)&client, client_size) == 4 &&
       recv(named, text, 16, MSG_DONTWAIT) == 4);
  must(sendto(named, "path", 4, 0, (struct sockaddr*)&file, sizeof file) == 4 &&
       recv(on_path, text, 16, MSG_DONTWAIT) == 4);
  pass();
}
