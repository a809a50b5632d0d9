/* unix(7): a connection whose listener is closed and whose path is unlinked goes on, and its ends keep their
 * names. */
#include "behaviour.h"

#include <sys/socket.h>
#include <sys/un.h>

int main(void) {
  struct sockaddr_un a = {.sun_family = AF_UNIX}, got = {0};
  must(chdir(scratch(".")) == 0);
  strcpy(a.sun_path, "gone.sock");
  int listener = socket(AF_UNIX, SOCK_STREAM, 0), client = socket(AF_UNIX, SOCK_STREAM, 0);
  must(bind(listener, (struct sockaddr*)&a, sizeof a) == 0 && listen(listener, 1) == 0);
  must(connect(client, (struct sockaddr*)&a, sizeof a) == 0);
  int server = accept(listener, NULL, NULL);
  must(server >= 0 && close(listener) == 0 && unlink("gone.sock") == 0 && write(client, "under way", 9) == 9);
  ready();
  char text[16];
  must(read(server, text, 16) == 9 && write(server, "back", 4) == 4 && read(client, text, 16) == 4);
  must(access("gone.sock", F_OK) == -1);
  socklen_t n = sizeof got;
  must(getsockname(server, (struct sockaddr*)&got, &n) == 0);
  if (strcmp(got.sun_path, "gone.sock") != 0) fail("the server's name is '%s'", got.sun_path);
  n = sizeof got;
  must(getpeername(client, (struct sockaddr*)&got, &n) == 0 && strcmp(got.sun_path, "gone.sock") == 0);
  pass();
}
