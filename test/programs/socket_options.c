/* socket(7), tcp(7), unix(7): the options a program has set, of every kind that is ordinary. */
#include "behaviour.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

static const struct {
  int family, type, level, name, value;
} options[] = {
    {AF_INET, SOCK_STREAM, SOL_SOCKET, SO_REUSEADDR, 1},
    {AF_INET, SOCK_STREAM, SOL_SOCKET, SO_REUSEPORT, 1},
    {AF_INET, SOCK_STREAM, SOL_SOCKET, SO_KEEPALIVE, 1},
    {AF_INET, SOCK_STREAM, SOL_SOCKET, SO_OOBINLINE, 1},
    {AF_INET, SOCK_STREAM, SOL_SOCKET, SO_SNDBUF, 40000},
    {AF_INET, SOCK_STREAM, SOL_SOCKET, SO_RCVBUF, 50000},
    {AF_INET, SOCK_STREAM, SOL_SOCKET, SO_RCVLOWAT, 7},
    {AF_INET, SOCK_STREAM, SOL_SOCKET, SO_PRIORITY, 5},
    {AF_INET, SOCK_STREAM, IPPROTO_TCP, TCP_NODELAY, 1},
    {AF_INET, SOCK_STREAM, IPPROTO_TCP, TCP_KEEPIDLE, 33},
    {AF_INET, SOCK_STREAM, IPPROTO_TCP, TCP_KEEPINTVL, 44},
    {AF_INET, SOCK_STREAM, IPPROTO_TCP, TCP_KEEPCNT, 5},
    {AF_INET, SOCK_STREAM, IPPROTO_TCP, TCP_SYNCNT, 4},
    {AF_INET, SOCK_STREAM, IPPROTO_TCP, TCP_DEFER_ACCEPT, 3},
    {AF_INET, SOCK_STREAM, IPPROTO_TCP, TCP_USER_TIMEOUT, 999},
    {AF_INET, SOCK_STREAM, IPPROTO_TCP, TCP_MAXSEG, 1000},
    {AF_INET, SOCK_STREAM, IPPROTO_TCP, TCP_NOTSENT_LOWAT, 8192},
    {AF_INET, SOCK_STREAM, IPPROTO_IP, IP_TTL, 77},
    {AF_INET, SOCK_STREAM, IPPROTO_IP, IP_TOS, 0x10},
    {AF_INET, SOCK_STREAM, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1},
    {AF_INET, SOCK_DGRAM, SOL_SOCKET, SO_BROADCAST, 1},
    {AF_INET, SOCK_DGRAM, IPPROTO_IP, IP_PKTINFO, 1},
    {AF_INET, SOCK_DGRAM, IPPROTO_IP, IP_RECVERR, 1},
    {AF_INET, SOCK_DGRAM, IPPROTO_IP, IP_MULTICAST_TTL, 9},
    {AF_INET, SOCK_DGRAM, IPPROTO_IP, IP_MULTICAST_LOOP, 0},
    {AF_INET, SOCK_DGRAM, IPPROTO_IP, IP_RECVTTL, 1},
    {AF_INET, SOCK_DGRAM, IPPROTO_IP, IP_RECVTOS, 1},
    {AF_INET, SOCK_DGRAM, SOL_SOCKET, SO_RXQ_OVFL, 1},
    {AF_INET6, SOCK_STREAM, IPPROTO_IPV6, IPV6_V6ONLY, 1},
    {AF_INET6, SOCK_STREAM, IPPROTO_IPV6, IPV6_UNICAST_HOPS, 66},
    {AF_INET6, SOCK_DGRAM, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1},
    {AF_INET6, SOCK_DGRAM, IPPROTO_IPV6, IPV6_TCLASS, 4},
    {AF_INET6, SOCK_DGRAM, IPPROTO_IPV6, IPV6_RECVHOPLIMIT, 1},
    {AF_INET6, SOCK_DGRAM, IPPROTO_IPV6, IPV6_MULTICAST_HOPS, 9},
    {AF_UNIX, SOCK_STREAM, SOL_SOCKET, SO_PASSCRED, 1},
    {AF_UNIX, SOCK_DGRAM, SOL_SOCKET, SO_SNDBUF, 30000},
    {AF_UNIX, SOCK_STREAM, SOL_SOCKET, SO_PEEK_OFF, 3},
    {AF_UNIX, SOCK_DGRAM, SOL_SOCKET, SO_TIMESTAMP, 1},
};
enum { count = sizeof options / sizeof options[0] };

int main(void) {
  int fds[count], values[count];
  struct timeval t = {3, 250000}, got;
  struct linger l = {1, 17}, later;
  socklen_t n = sizeof(int);
  for (int i = 0; i < count; i++) {
    fds[i] = socket(options[i].family, options[i].type, 0);
    if (setsockopt(fds[i], options[i].level, options[i].name, &options[i].value, n) != 0)
      fail("option %d: %s", i, strerror(errno));
    must(getsockopt(fds[i], options[i].level, options[i].name, &values[i], &n) == 0);
  }
  must(setsockopt(fds[0], SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t) == 0 &&
       setsockopt(fds[0], SOL_SOCKET, SO_LINGER, &l, sizeof l) == 0);
  must(setsockopt(fds[1], IPPROTO_TCP, TCP_CONGESTION, "reno", 4) == 0);
  ready();
  char lost[1000] = "";
  for (int i = 0; i < count; i++) {
    int value = -1;
    n = sizeof value;
    must(getsockopt(fds[i], options[i].level, options[i].name, &value, &n) == 0);
    if (value != values[i])
      snprintf(lost + strlen(lost), 60, " %d/%d/%d is %d, was %d;", options[i].family, options[i].level,
               options[i].name, value, values[i]);
  }
  if (lost[0]) fail("%s", lost);
  n = sizeof got;
  must(getsockopt(fds[0], SOL_SOCKET, SO_RCVTIMEO, &got, &n) == 0 && got.tv_sec == 3 &&
       got.tv_usec / 10000 == 25);
  n = sizeof later;
  must(getsockopt(fds[0], SOL_SOCKET, SO_LINGER, &later, &n) == 0 && later.l_onoff == 1 &&
       later.l_linger == 17);
  char name[16] = {0};
  n = sizeof name;
  must(getsockopt(fds[1], IPPROTO_TCP, TCP_CONGESTION, name, &n) == 0 && strcmp(name, "reno") == 0);
  pass();
}
