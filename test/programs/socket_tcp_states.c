/* tcp(7): sockets that are nothing yet: unbound, bound without listening, sharing a port by SO_REUSEPORT. */
#include "behaviour.h"

#include <netinet/in.h>
#include <sys/socket.h>

static struct sockaddr_in loopback(void) {
  return (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

int main(void) {
  struct sockaddr_in a = loopback(), b = loopback(), now;
  int fresh = socket(AF_INET, SOCK_STREAM, 0), bound = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
  int one = socket(AF_INET, SOCK_STREAM, 0), two = socket(AF_INET, SOCK_STREAM, 0);
  socklen_t n = sizeof a;
  must(bind(bound, (struct sockaddr*)&a, sizeof a) == 0 && getsockname(bound, (struct sockaddr*)&a, &n) == 0);
  must(setsockopt(one, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) == 0 &&
       setsockopt(two, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) == 0);
  must(bind(one, (struct sockaddr*)&b, sizeof b) == 0 && listen(one, 2) == 0 &&
       getsockname(one, (struct sockaddr*)&b, &n) == 0);
  must(bind(two, (struct sockaddr*)&b, sizeof b) == 0 && listen(two, 2) == 0);
  ready();
  must(getsockname(bound, (struct sockaddr*)&now, &n) == 0 && now.sin_port == a.sin_port &&
       fcntl(bound, F_GETFD) == FD_CLOEXEC);
  int client = socket(AF_INET, SOCK_STREAM, 0);
  must(connect(client, (struct sockaddr*)&a, sizeof a) == -1 && errno == ECONNREFUSED);
  must(listen(bound, 1) == 0 && connect(fresh, (struct sockaddr*)&a, sizeof a) == 0);
  must(getsockname(two, (struct sockaddr*)&now, &n) == 0 && now.sin_port == b.sin_port);
  must(close(one) == 0 && connect(socket(AF_INET, SOCK_STREAM, 0), (struct sockaddr*)&b, sizeof b) == 0);
  must(accept(two, NULL, NULL) >= 0);
  pass();
}
