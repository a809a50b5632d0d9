/* Tries to reach anything outside a pod without network. Usage: network PORT NAME: a TCP port of the host's 127.0.0.1 and the
 * abstract unix socket NAME, both listened on outside. */
#include "attempt.h"

#include <arpa/inet.h>
#include <linux/vm_sockets.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <stddef.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>

static int allowed(int family) {
  return family == AF_UNIX || family == AF_INET || family == AF_INET6 || family == AF_NETLINK || family == AF_PACKET;
}

static int tcp(const char* address, int port) {
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
  inet_pton(AF_INET, address, &to.sin_addr);
  return connect(fd, (struct sockaddr*)&to, sizeof to) == 0 ? fd : (close(fd), -1);
}

static void names(const char* name) {
  struct sockaddr_un to = {.sun_family = AF_UNIX};
  strcpy(to.sun_path + 1, name);
  socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(name));
  int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  /* Some name theirs with all the zeros behind. */
  int through = connect(fd, (struct sockaddr*)&to, size) == 0 || connect(fd, (struct sockaddr*)&to, sizeof to) == 0;
  attempt("an abstract unix socket", through);
  close(fd);
}

static void families(void) {
  for (int family = 0; family < 64; family++) {
    for (int type = 1; type <= 10; type++) {
      int fd = socket(family, type, 0);
      if (fd < 0) continue;
      char text[64];
      snprintf(text, sizeof text, "a socket of family %d, type %d", family, type);
      if (!allowed(family)) attempt(text, 1);
      close(fd);
    }
  }
  errno = EAFNOSUPPORT;
  attempt("sockets of other families", 0);
  struct sockaddr_vm host = {.svm_family = AF_VSOCK, .svm_cid = 2, .svm_port = 1};
  int fd = socket(AF_VSOCK, SOCK_STREAM, 0);
  must_fail("the hypervisor", connect(fd, (struct sockaddr*)&host, sizeof host));
  /* By the numbers of other architectures. */
  must_not_open("a socket by x32's number", syscall(0x40000000 | SYS_socket, AF_VSOCK, SOCK_STREAM, 0));
  long result;
  __asm__ volatile("int $0x80" : "=a"(result) : "a"(359L), "b"(AF_VSOCK), "c"(SOCK_STREAM), "d"(0) : "memory");
  errno = (int)-result;
  attempt("a socket by i386's number", result >= 0);
  must_not_open("io_uring", syscall(425, 1, calloc(1, 256)));
}

static void outwards(int port) {
  must_not_open("a port of the host", tcp("127.0.0.1", port));
  must_not_open("an address outside", tcp("192.0.2.1", 80));
  int fd = socket(AF_INET, SOCK_DGRAM, 0);
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(53)};
  inet_pton(AF_INET, "192.0.2.1", &to.sin_addr);
  must_fail("a datagram", sendto(fd, "x", 1, 0, (struct sockaddr*)&to, sizeof to));
  close(fd);
  fd = socket(AF_INET6, SOCK_DGRAM, 0);
  struct sockaddr_in6 to6 = {.sin6_family = AF_INET6, .sin6_port = htons(53)};
  inet_pton(AF_INET6, "2001:db8::1", &to6.sin6_addr);
  must_fail("a datagram by IPv6", sendto(fd, "x", 1, 0, (struct sockaddr*)&to6, sizeof to6));
  close(fd);
  int others = 0;
  struct if_nameindex* list = if_nameindex();
  for (struct if_nameindex* i = list; list && i->if_index; i++)
    others += strcmp(i->if_name, "lo") != 0 && if_nametoindex(i->if_name) != 0 &&
              strncmp(i->if_name, "sit", 3) != 0 && strncmp(i->if_name, "tunl", 4) != 0 && strncmp(i->if_name, "gre", 3) != 0 &&
              strncmp(i->if_name, "ip", 2) != 0 && strncmp(i->if_name, "erspan", 6) != 0;
  attempt("another interface than lo", others > 0);
}

static void namespaces(void) {
  must_not_open("init's network namespace", open("/proc/1/ns/net", O_RDONLY));
  must_fail("another network namespace", unshare(CLONE_NEWNET));
  must_fail("one in a user namespace", unshare(CLONE_NEWUSER | CLONE_NEWNET));
  must_fail("mount sysfs", mount("x", "/sys", "sysfs", 0, NULL));
  must_not_open("a tunnel", open("/dev/net/tun", O_RDWR) < 0 ? -1 : getuid() == 0 ? 0 : -1);
}

/* What a pod without network has: itself. */
static int loopback(void) {
  struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
  socklen_t size = sizeof at;
  int listener = socket(AF_INET, SOCK_STREAM, 0);
  if (bind(listener, (struct sockaddr*)&at, size) != 0 || listen(listener, 1) != 0) return -1;
  getsockname(listener, (struct sockaddr*)&at, &size);
  return tcp("127.0.0.1", ntohs(at.sin_port));
}

int main(int argc, char** argv) {
  if (argc < 3) return 2;
  if (loopback() < 0) return 3;
  outwards(atoi(argv[1]));
  names(argv[2]);
  families();
  namespaces();
  dprintf(1, "DONE\n");
  return 0;
}
