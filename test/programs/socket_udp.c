/* udp(7): sockets that are bound, connected to each other or to nobody go on as they were. */
#include "behaviour.h"

#include <netinet/in.h>
#include <sys/socket.h>

int main(void) {
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)}, peer;
  struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_addr = in6addr_loopback};
  int server = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0), client = socket(AF_INET, SOCK_DGRAM, 0);
  int v6 = socket(AF_INET6, SOCK_DGRAM, 0), fresh = socket(AF_INET, SOCK_DGRAM, 0);
  socklen_t n = sizeof a, n6 = sizeof six;
  must(bind(server, (struct sockaddr*)&a, sizeof a) == 0 &&
       getsockname(server, (struct sockaddr*)&a, &n) == 0);
  must(bind(v6, (struct sockaddr*)&six, sizeof six) == 0 &&
       getsockname(v6, (struct sockaddr*)&six, &n6) == 0);
  must(connect(client, (struct sockaddr*)&a, sizeof a) == 0);
  struct sockaddr_in own;
  must(getsockname(client, (struct sockaddr*)&own, &n) == 0);
  ready();
  char text[16];
  must(recv(server, text, 16, 0) == -1 && errno == EAGAIN);
  must(send(client, "hello", 5, 0) == 5 && recvfrom(server, text, 16, 0, (struct sockaddr*)&peer, &n) == 5);
  must(peer.sin_port == own.sin_port && peer.sin_addr.s_addr == own.sin_addr.s_addr);
  must(sendto(server, "back", 4, 0, (struct sockaddr*)&peer, sizeof peer) == 4 &&
       recv(client, text, 16, 0) == 4);
  must(getpeername(client, (struct sockaddr*)&peer, &n) == 0 && peer.sin_port == a.sin_port);
  must(sendto(fresh, "new", 3, 0, (struct sockaddr*)&a, sizeof a) == 3 && recv(server, text, 16, 0) == 3);
  int from = socket(AF_INET6, SOCK_DGRAM, 0);
  must(sendto(from, "six", 3, 0, (struct sockaddr*)&six, sizeof six) == 3 && recv(v6, text, 16, 0) == 3);
  pass();
}
