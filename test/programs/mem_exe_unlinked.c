/* A program whose own file was removed while it runs, as after an upgrade: it runs on, /proc/self/exe is
 * still it and can be read. */
#include "areas.h"

static int value = 42;

int main(int argc, char** argv) {
  (void)argc;
  if (getenv("COPIED") == NULL) {
    int from = open("/proc/self/exe", O_RDONLY),
        to = open(scratch("copy"), O_WRONLY | O_CREAT | O_EXCL, 0755);
    must(from >= 0 && to >= 0);
    char buffer[65536];
    for (ssize_t n; (n = read(from, buffer, sizeof buffer)) != 0;)
      must(n > 0 && write(to, buffer, (size_t)n) == n);
    must(close(from) == 0 && close(to) == 0 && setenv("COPIED", "1", 1) == 0);
    execv(scratch("copy"), argv);
    fail("execv: %s", strerror(errno));
  }
  must(unlink(scratch("copy")) == 0);
  value = 43;
  ready();
  must(value == 43);
  char head[4] = "", link[512] = "";
  int fd = open("/proc/self/exe", O_RDONLY);
  must(fd >= 0 && read(fd, head, 4) == 4 && memcmp(head, "\177ELF", 4) == 0);
  must(readlink("/proc/self/exe", link, sizeof link - 1) > 0 && strstr(link, " (deleted)") != NULL);
  pass();
}
