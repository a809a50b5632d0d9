/* bind(2), unix(7): a datagram socket bound by a relative name in a directory whose path is too long for an address, and
 * one whose name was removed since: both keep their names, what waits in them and who sent it; the first can still be
 * sent to. */
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
  char gone[100];
  snprintf(gone, sizeof gone, "/tmp/virt-run-names-%d-%ld", (int)getpid(), (long)time(NULL));
  int box = bound("box"), writer = bound("writer"), removed = bound(gone);
  mail(writer, "box", "one");
  mail(writer, gone, "two");
  must(unlink(gone) == 0);
  ready();
  expect_name(box, "box");
  expect_name(removed, gone);
  expect(box, "one", "writer");
  expect(removed, "two", "writer");
  must(access(gone, F_OK) != 0 && errno == ENOENT);
  mail(writer, "box", "three");
  expect(box, "three", "writer");
  pass();
}
