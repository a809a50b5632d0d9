/* Files that the kernel makes up: descriptors into /proc, of the process itself and of all, can be read
 * again. */
#include "meanwhile.h"

int main(void) {
  int stat = open("/proc/self/stat", O_RDONLY), up = open("/proc/uptime", O_RDONLY),
      dir = open("/proc/self/fd", O_RDONLY | O_DIRECTORY);
  must(stat >= 0 && up >= 0 && dir >= 0);
  char text[1024] = {0}, pid[16];
  must(read(up, text, 5) == 5);
  ready();
  must(lseek(up, 0, SEEK_CUR) == 5);
  must(pread(stat, text, sizeof text - 1, 0) > 0);
  snprintf(pid, sizeof pid, "%d (", (int)getpid());
  if (strncmp(text, pid, strlen(pid)) != 0) fail("stat begins with %.20s", text);
  snprintf(pid, sizeof pid, "%d", dir);
  must(readlinkat(dir, pid, text, sizeof text) > 0);
  pass();
}
