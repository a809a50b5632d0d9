/* bind(2), unix(7): a datagram socket bound by a relative name in a directory whose path is too long for an address, and
 * one whose name was removed since: both keep their names, what waits in them and who sent it; the first can still be
 * sent to. One of a pair that has sent to another socket as well is still one of the pair; and whoever is connected to a name there still is. */
#include <sys/socket.h>
#include <sys/un.h>

#include "behaviour.h"

static int bound(const char* name) {
  struct sockaddr_un a = {.sun_family = AF_UNIX};
  snprintf(a.sun_path, sizeof a.sun_path, "%s", name);
  int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
  must(fd >= 0 && bind(fd, (struct sockaddr*)&a, sizeof a) == 0);
  return fd;
}

static void mail(int from, const char* to, const char* text) {
  struct sockaddr_un a = {.sun_family = AF_UNIX};
  snprintf(a.sun_path, sizeof a.sun_path, "%s", to);
  must(sendto(from, text, strlen(text), MSG_DONTWAIT, (struct sockaddr*)&a, sizeof a) ==
       (ssize_t)strlen(text));
}

static void expect(int fd, const char* text, const char* from) {
  char got[100] = "";
  struct sockaddr_un a = {0};
  socklen_t size = sizeof a;
  ssize_t n = recvfrom(fd, got, sizeof got - 1, MSG_DONTWAIT, (struct sockaddr*)&a, &size);
  if (n != (ssize_t)strlen(text) || strcmp(got, text) != 0 || strcmp(a.sun_path, from) != 0)
    fail("got \"%s\" from \"%s\", expected \"%s\" from \"%s\"", got, a.sun_path, text, from);
}

static void expect_name(int fd, const char* name) {
  struct sockaddr_un a = {0};
  socklen_t size = sizeof a;
  must(getsockname(fd, (struct sockaddr*)&a, &size) == 0 && strcmp(a.sun_path, name) == 0);
}

int main(void) {
  for (int i = 0; i < 3; i++) {
    const char* deep = "a-directory-with-a-name-of-sixty-characters-to-make-it-too-long-";
    must(mkdir(deep, 0700) == 0 && chdir(deep) == 0);
  }
  struct sockaddr_un door = {.sun_family = AF_UNIX, .sun_path = "door"};
  int listener = socket(AF_UNIX, SOCK_STREAM, 0), guest = socket(AF_UNIX, SOCK_STREAM, 0);
  must(bind(listener, (struct sockaddr*)&door, sizeof door) == 0 && listen(listener, 5) == 0);
  must(connect(guest, (struct sockaddr*)&door, sizeof door) == 0);
  int host = accept(listener, NULL, NULL);
  must(host >= 0);
  char gone[100];
  snprintf(gone, sizeof gone, "/tmp/virt-run-names-%d-%ld", (int)getpid(), (long)time(NULL));
  int pair[2];
  struct sockaddr_un named = {.sun_family = AF_UNIX, .sun_path = "one-of-two"};
  must(socketpair(AF_UNIX, SOCK_DGRAM, 0, pair) == 0 &&
       bind(pair[0], (struct sockaddr*)&named, sizeof named) == 0);
  int box = bound("box"), writer = bound("writer"), removed = bound(gone);
  int faithful = socket(AF_UNIX, SOCK_DGRAM, 0);
  struct sockaddr_un at_box = {.sun_family = AF_UNIX, .sun_path = "box"};
  must(connect(faithful, (struct sockaddr*)&at_box, sizeof at_box) == 0);
  mail(writer, "box", "one");
  mail(writer, gone, "two");
  mail(pair[0], "box", "from the pair");
  must(unlink(gone) == 0);
  ready();
  expect_name(box, "box");
  expect_name(removed, gone);
  expect(box, "one", "writer");
  expect(box, "from the pair", "one-of-two");
  char got[8] = "";
  must(send(pair[0], "still", 5, 0) == 5 && recv(pair[1], got, sizeof got, MSG_DONTWAIT) == 5);
  must(send(pair[1], "too", 3, 0) == 3 && recv(pair[0], got, sizeof got, MSG_DONTWAIT) == 3);
  expect(removed, "two", "writer");
  must(access(gone, F_OK) != 0 && errno == ENOENT);
  must(send(faithful, "two and a half", 14, 0) == 14);
  expect(box, "two and a half", "");
  must(write(guest, "knock", 5) == 5 && read(host, got, sizeof got) == 5);
  expect_name(host, "door");
  mail(writer, "box", "three");
  expect(box, "three", "writer");
  pass();
}
