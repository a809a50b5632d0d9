// What bench/connections.ts measures connections with. A server: `serve PORT` does what a client asks for, one client at a
// time (so many bytes taken, sent, or sent back one by one); `keep PORT` accepts whoever comes and waits. Clients, which take
// an order a line from standard input and answer each with a line: `ask HOST PORT` has the bytes sent and says how many
// microseconds that took; `ping HOST PORT` pings a redis every millisecond and says the longest wait for an answer, in
// microseconds, since it was asked last; `open HOST PORT COUNT` opens connections and says how many of them live.
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { kChunk = 256 << 10 };

struct order {
  char what[8];  // "sink", "source", "echo"
  long long count;
};

static char chunk[kChunk];

static void die(const char* what) {
  perror(what);
  exit(1);
}

static long long microseconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000LL + t.tv_nsec / 1000;
}

static struct sockaddr_in address_of(const char* host, const char* port) {
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((unsigned short)atoi(port))};
  if (inet_pton(AF_INET, host, &a.sin_addr) != 1) die(host);
  return a;
}

static int connected(const char* host, const char* port) {
  const struct sockaddr_in a = address_of(host, port);
  const int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;
  if (fd < 0 || connect(fd, (const struct sockaddr*)&a, sizeof a) != 0) die("connect");
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  return fd;
}

static int listening(const char* port) {
  const struct sockaddr_in a = address_of("0.0.0.0", port);
  const int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (fd < 0 || bind(fd, (const struct sockaddr*)&a, sizeof a) != 0 || listen(fd, 4096) != 0) die("listen");
  puts("ready");
  fflush(stdout);
  return fd;
}

static int read_all(int fd, void* to, size_t size) {
  for (char* p = to; size > 0;) {
    const ssize_t n = read(fd, p, size);
    if (n <= 0) return 0;
    p += n;
    size -= (size_t)n;
  }
  return 1;
}

static void write_all(int fd, const void* from, size_t size) {
  for (const char* p = from; size > 0;) {
    const ssize_t n = write(fd, p, size);
    if (n < 0) die("write");
    p += n;
    size -= (size_t)n;
  }
}

static void take(int fd, long long bytes) {
  while (bytes > 0) {
    const ssize_t n = read(fd, chunk, bytes < kChunk ? (size_t)bytes : kChunk);
    if (n <= 0) die("the connection");
    bytes -= n;
  }
}

static void give(int fd, long long bytes) {
  for (; bytes > 0; bytes -= kChunk) write_all(fd, chunk, bytes < kChunk ? (size_t)bytes : kChunk);
}

static void serve(const char* port) {
  const int listener = listening(port), on = 1;
  for (;;) {
    const int fd = accept(listener, NULL, NULL);
    if (fd < 0) die("accept");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    struct order o;
    char byte = 0;
    while (read_all(fd, &o, sizeof o)) {
      if (strcmp(o.what, "source") == 0) {
        give(fd, o.count);
      } else if (strcmp(o.what, "sink") == 0) {
        take(fd, o.count);
        write_all(fd, &byte, 1);
      } else {
        while (o.count-- > 0 && read_all(fd, &byte, 1)) write_all(fd, &byte, 1);
      }
    }
    close(fd);
  }
}

static void ask(const char* host, const char* port) {
  const int fd = connected(host, port);
  struct order o = {0};
  char byte = 0;
  while (scanf("%7s %lld", o.what, &o.count) == 2) {
    const long long start = microseconds();
    write_all(fd, &o, sizeof o);
    if (strcmp(o.what, "source") == 0) {
      take(fd, o.count);
    } else if (strcmp(o.what, "sink") == 0) {
      give(fd, o.count);
      take(fd, 1);
    } else {
      for (long long i = 0; i < o.count; i++) {
        write_all(fd, &byte, 1);
        take(fd, 1);
      }
    }
    printf("%lld\n", microseconds() - start);
    fflush(stdout);
  }
}

static void more_files(void) {
  struct rlimit l;
  if (getrlimit(RLIMIT_NOFILE, &l) != 0) die("getrlimit");
  l.rlim_cur = l.rlim_max;
  if (setrlimit(RLIMIT_NOFILE, &l) != 0) die("setrlimit");
}

static void keep(const char* port) {
  more_files();
  const int listener = listening(port);
  while (accept(listener, NULL, NULL) >= 0) continue;
  die("accept");
}

static void open_many(const char* host, const char* port, int count) {
  more_files();
  struct pollfd* fds = calloc((size_t)count, sizeof *fds);
  for (int i = 0; i < count; i++) fds[i] = (struct pollfd){connected(host, port), POLLIN, 0};
  while (scanf("%7s", chunk) == 1) {
    poll(fds, (nfds_t)count, 0);
    int live = 0;
    for (int i = 0; i < count; i++) live += fds[i].revents == 0;
    printf("%d\n", live);
    fflush(stdout);
  }
}

static void ping(const char* host, const char* port) {
  const int fd = connected(host, port);
  long long longest = 0;
  for (;;) {
    const long long start = microseconds();
    write_all(fd, "PING\r\n", 6);
    take(fd, 7);
    const long long took = microseconds() - start;
    if (took > longest) longest = took;
    struct pollfd in = {0, POLLIN, 0};
    if (poll(&in, 1, 1) == 0) continue;
    if (read(0, chunk, kChunk) <= 0) return;
    printf("%lld\n", longest);
    fflush(stdout);
    longest = 0;
  }
}

int main(int argc, char** argv) {
  if (argc == 3 && strcmp(argv[1], "serve") == 0) serve(argv[2]);
  if (argc == 3 && strcmp(argv[1], "keep") == 0) keep(argv[2]);
  if (argc == 4 && strcmp(argv[1], "ask") == 0) ask(argv[2], argv[3]);
  if (argc == 4 && strcmp(argv[1], "ping") == 0) ping(argv[2], argv[3]);
  if (argc == 5 && strcmp(argv[1], "open") == 0) open_many(argv[2], argv[3], atoi(argv[4]));
  return 0;
}
