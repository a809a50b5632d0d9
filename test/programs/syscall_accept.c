/* accept(2): whoever waits for clients on a unix and on a TCP socket waits on, and gets them. */
#include "meanwhile.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>

static long take(void* arg) {
  int fd = accept(*(int*)arg, NULL, NULL);
  char byte = 0;
  must(fd < 0 || (read(fd, &byte, 1) == 1 && byte == '!'));
  return fd < 0 ? -1 : 0;
}

int main(void) {
  struct sockaddr_un here = {.sun_family = AF_UNIX};
  snprintf(here.sun_path + 1, sizeof here.sun_path - 1, "syscall_accept.%d", (int)getpid());
  struct sockaddr_in there = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t size = sizeof there;
  int u = socket(AF_UNIX, SOCK_STREAM, 0), t = socket(AF_INET, SOCK_STREAM, 0);
  must(bind(u, (struct sockaddr*)&here, sizeof here) == 0 && listen(u, 5) == 0);
  must(bind(t, (struct sockaddr*)&there, sizeof there) == 0 && listen(t, 5) == 0);
  must(getsockname(t, (struct sockaddr*)&there, &size) == 0);
  struct call on_unix, on_tcp;
  call_in_child(&on_unix, SYS_accept, take, &u);
  call_in_thread(&on_tcp, SYS_accept, take, &t);
  ready();
  still_inside(&on_unix);
  still_inside(&on_tcp);
  int a = socket(AF_UNIX, SOCK_STREAM, 0), b = socket(AF_INET, SOCK_STREAM, 0);
  must(connect(a, (struct sockaddr*)&here, sizeof here) == 0 && write(a, "!", 1) == 1);
  must(connect(b, (struct sockaddr*)&there, sizeof there) == 0 && write(b, "!", 1) == 1);
  must(end_of_call(&on_unix) == 0);
  must(end_of_call(&on_tcp) == 0);
  pass();
}
