/* unix(7): a server with a path and one with an abstract name, each with connected clients: names of both
 * sides, data under way in both directions, and new clients. */
#include "behaviour.h"

#include <stddef.h>
#include <sys/socket.h>
#include <sys/un.h>

static struct sockaddr_un at[2];
static socklen_t length[2];

static void expect_name(int (*ask)(int, struct sockaddr*, socklen_t*), int fd, int which) {
  struct sockaddr_un a = {0};
  socklen_t n = sizeof a;
  must(ask(fd, (struct sockaddr*)&a, &n) == 0);
  if (which < 0 ? n != sizeof(sa_family_t) : n != length[which] || memcmp(&a, &at[which], n) != 0)
    fail("descriptor %d: a name of %u bytes, %s", fd, n, a.sun_path[0] ? a.sun_path : a.sun_path + 1);
}

int main(void) {
  int listener[2], client[2], server[2];
  char text[16];
  at[0].sun_family = at[1].sun_family = AF_UNIX;
  must(chdir(scratch(".")) == 0);
  strcpy(at[0].sun_path, "server.sock");
  length[0] = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 12);
  length[1] = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1) +
              (socklen_t)snprintf(at[1].sun_path + 1, 100, "socket_unix_server.%d", (int)getpid());
  for (int i = 0; i < 2; i++) {
    listener[i] = socket(AF_UNIX, i == 0 ? SOCK_STREAM : SOCK_SEQPACKET, 0);
    must(bind(listener[i], (struct sockaddr*)&at[i], length[i]) == 0 && listen(listener[i], 7) == 0);
    client[i] = socket(AF_UNIX, i == 0 ? SOCK_STREAM : SOCK_SEQPACKET, 0);
    must(connect(client[i], (struct sockaddr*)&at[i], length[i]) == 0);
    must((server[i] = accept(listener[i], NULL, NULL)) >= 0);
    must(write(client[i], "request", 7) == 7 && write(server[i], "answer", 6) == 6);
  }
  must(chmod("server.sock", 0620) == 0);
  ready();
  struct stat st;
  must(stat("server.sock", &st) == 0 && S_ISSOCK(st.st_mode) && (st.st_mode & 0777) == 0620);
  for (int i = 0; i < 2; i++) {
    int on = 0;
    socklen_t n = sizeof on;
    must(getsockopt(listener[i], SOL_SOCKET, SO_ACCEPTCONN, &on, &n) == 0 && on == 1);
    expect_name(getsockname, listener[i], i);
    expect_name(getsockname, server[i], i);
    expect_name(getpeername, client[i], i);
    expect_name(getsockname, client[i], -1);
    expect_name(getpeername, server[i], -1);
    must(read(server[i], text, 16) == 7 && memcmp(text, "request", 7) == 0);
    must(read(client[i], text, 16) == 6 && memcmp(text, "answer", 6) == 0);
    int late = socket(AF_UNIX, i == 0 ? SOCK_STREAM : SOCK_SEQPACKET, 0);
    must(connect(late, (struct sockaddr*)&at[i], length[i]) == 0);
    int accepted = accept(listener[i], NULL, NULL);
    must(accepted >= 0 && write(late, "late", 4) == 4 && read(accepted, text, 16) == 4);
    must(close(client[i]) == 0 && read(server[i], text, 1) == 0);
  }
  pass();
}
