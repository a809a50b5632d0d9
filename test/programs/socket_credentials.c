/* unix(7): SO_PEERCRED names the process that made the pair or connected.
 * todo: sockets are made by the seed, before the tree stands; the numbers of ids are right, the pid is the seed's */
#include "meanwhile.h"

#include <sys/socket.h>
#include <sys/un.h>

static pid_t peer(int fd) {
  struct ucred c = {0};
  socklen_t size = sizeof c;
  must(getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &c, &size) == 0 && c.uid == getuid() && c.gid == getgid());
  return c.pid;
}

int main(void) {
  int pair[2], on = 1, listener = socket(AF_UNIX, SOCK_STREAM, 0);
  struct sockaddr_un here = {.sun_family = AF_UNIX};
  snprintf(here.sun_path + 1, sizeof here.sun_path - 1, "socket_credentials.%d", (int)getpid());
  must(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0 &&
       setsockopt(pair[1], SOL_SOCKET, SO_PASSCRED, &on, sizeof on) == 0);
  must(bind(listener, (struct sockaddr*)&here, sizeof here) == 0 && listen(listener, 3) == 0);
  make_gate();
  pid_t child = fork_at_gate();
  if (child == 0) {
    int s = socket(AF_UNIX, SOCK_STREAM, 0);
    must(connect(s, (struct sockaddr*)&here, sizeof here) == 0);
    wait_at_gate();
    must(peer(s) == getppid());
    _exit(0);
  }
  int client = accept(listener, NULL, NULL);
  must(client >= 0 && peer(client) == child && peer(pair[0]) == getpid());
  await_call(child, child, SYS_read);
  ready();
  if (peer(pair[0]) != getpid()) fail("the pair's maker is %d, not %d", (int)peer(pair[0]), (int)getpid());
  if (peer(client) != child) fail("the client is %d, not %d", (int)peer(client), (int)child);
  open_gate();
  ended_well(child);
  pass();
}
