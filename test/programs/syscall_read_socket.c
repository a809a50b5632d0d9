/* read(2) and recvmsg(2) on empty sockets: the callers wait on and get what is sent. */
#include "meanwhile.h"

#include <sys/socket.h>

static long get(void* arg) {
  char bytes[16];
  long n = read(*(int*)arg, bytes, sizeof bytes);
  must(n != 5 || memcmp(bytes, "hello", 5) == 0);
  return n;
}

static long get_message(void* arg) {
  char bytes[16];
  struct iovec v = {bytes, sizeof bytes};
  struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1};
  long n = recvmsg(*(int*)arg, &m, 0);
  must(n != 4 || memcmp(bytes, "ciao", 4) == 0);
  return n;
}

int main(void) {
  int s[2], d[2];
  must(socketpair(AF_UNIX, SOCK_STREAM, 0, s) == 0 && socketpair(AF_UNIX, SOCK_DGRAM, 0, d) == 0);
  struct call stream, datagram;
  call_in_child(&stream, SYS_read, get, &s[0]);
  call_in_thread(&datagram, SYS_recvmsg, get_message, &d[0]);
  ready();
  still_inside(&stream);
  still_inside(&datagram);
  must(write(s[1], "hello", 5) == 5 && send(d[1], "ciao", 4, 0) == 4);
  must(end_of_call(&stream) == 5);
  must(end_of_call(&datagram) == 4);
  pass();
}
