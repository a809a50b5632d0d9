/* open(2), fcntl(2): the offset, the access mode and the status flags of regular files, and what they do. */
#include "behaviour.h"

static int make(const char* name, int flags, off_t at) {
  int fd = open(scratch(name), flags | O_CREAT, 0640);
  must(fd >= 0 && ftruncate(fd, 4096) == 0 && lseek(fd, at, SEEK_SET) == at);
  return fd;
}

int main(void) {
  int w = make("w", O_WRONLY, 17), rw = make("rw", O_RDWR, 5000000000), a = make("a", O_WRONLY | O_APPEND, 3);
  int set = make("set", O_RDWR, 1), ro = open(scratch("w"), O_RDONLY | O_NOATIME | O_CLOEXEC);
  must(ro >= 0 && lseek(ro, 4096, SEEK_SET) == 4096);
  must(fcntl(set, F_SETFL, O_APPEND | O_NONBLOCK) == 0);
  must(fcntl(rw, F_SETFL, O_NOATIME) == 0);
  int sync = make("sync", O_RDWR | O_SYNC, 0), dsync = make("dsync", O_WRONLY | O_DSYNC, 0);
  const int fds[] = {w, rw, a, set, ro, sync, dsync};
  int before[7];
  for (int i = 0; i < 7; i++) before[i] = fcntl(fds[i], F_GETFL);
  ready();
  for (int i = 0; i < 7; i++) {
    int now = fcntl(fds[i], F_GETFL);
    if (now != before[i]) fail("flags of file %d are %#o, were %#o", i, (unsigned)now, (unsigned)before[i]);
    must(fcntl(fds[i], F_GETFD) == (fds[i] == ro ? FD_CLOEXEC : 0));
  }
  must(lseek(w, 0, SEEK_CUR) == 17 && lseek(rw, 0, SEEK_CUR) == 5000000000 && lseek(a, 0, SEEK_CUR) == 3);
  char c;
  must(read(w, &c, 1) == -1 && errno == EBADF);
  must(write(ro, "x", 1) == -1 && errno == EBADF && read(ro, &c, 1) == 0);
  must(write(a, "end", 3) == 3 && lseek(a, 0, SEEK_CUR) == 4099);
  must(write(set, "end", 3) == 3 && lseek(set, 0, SEEK_CUR) == 4099);
  pass();
}
