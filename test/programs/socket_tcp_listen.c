/* listen(2): TCP servers over IPv4 and IPv6 keep port, address, backlog and what accepted sockets inherit;
 * clients come in as before, also through an epoll. */
#include "behaviour.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>

enum { servers = 4 };
static struct sockaddr_in6 at[servers];
static socklen_t size[servers];

static int serve(int i, int family, int any) {
  int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK, 0), on = 1;
  struct sockaddr_in* v4 = (struct sockaddr_in*)&at[i];
  at[i].sin6_family = (sa_family_t)family;
  size[i] = family == AF_INET ? sizeof *v4 : sizeof at[i];
  if (family == AF_INET)
    v4->sin_addr.s_addr = htonl(any ? INADDR_ANY : INADDR_LOOPBACK);
  else
    at[i].sin6_addr = any ? in6addr_any : in6addr_loopback;
  must(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) == 0);
  must(bind(fd, (struct sockaddr*)&at[i], size[i]) == 0 && listen(fd, 3 + i) == 0);
  must(getsockname(fd, (struct sockaddr*)&at[i], &size[i]) == 0);
  return fd;
}

int main(void) {
  int fds[servers], ep = epoll_create1(0), on;
  for (int i = 0; i < servers; i++) {
    fds[i] = serve(i, i < 2 ? AF_INET : AF_INET6, i % 2);
    struct epoll_event e = {.events = EPOLLIN | EPOLLET, .data.u32 = (unsigned)i};
    must(epoll_ctl(ep, EPOLL_CTL_ADD, fds[i], &e) == 0);
  }
  ready();
  for (int i = 0; i < servers; i++) {
    struct sockaddr_in6 now = {0};
    socklen_t n = sizeof now;
    must(getsockname(fds[i], (struct sockaddr*)&now, &n) == 0 && n == size[i] &&
         memcmp(&now, &at[i], n) == 0);
    struct tcp_info info;
    n = sizeof info;
    must(getsockopt(fds[i], IPPROTO_TCP, TCP_INFO, &info, &n) == 0 && info.tcpi_sacked == (unsigned)(3 + i));
    must(accept(fds[i], NULL, NULL) == -1 && errno == EAGAIN);
    int client = socket(i < 2 ? AF_INET : AF_INET6, SOCK_STREAM, 0);
    must(connect(client, (struct sockaddr*)&at[i], size[i]) == 0);
    struct epoll_event e;
    must(epoll_wait(ep, &e, 1, 1000) == 1 && e.data.u32 == (unsigned)i);
    int accepted = accept(fds[i], NULL, NULL);
    n = sizeof on;
    must(accepted >= 0 && getsockopt(accepted, IPPROTO_TCP, TCP_NODELAY, &on, &n) == 0 && on == 1);
    n = sizeof on;
    must(getsockopt(fds[i], SOL_SOCKET, SO_REUSEADDR, &on, &n) == 0 && on == 0);
    must(write(client, "x", 1) == 1 && read(accepted, &on, 1) == 1);
    struct linger now_l = {1, 0}; /* no TIME_WAIT */
    must(setsockopt(client, SOL_SOCKET, SO_LINGER, &now_l, sizeof now_l) == 0);
  }
  pass();
}
