/* open(2), O_PATH: descriptors that stand for a place: a file, a directory, a symbolic link itself. */
#include "behaviour.h"

int main(void) {
  int made = open(scratch("file"), O_WRONLY | O_CREAT, 0600);
  must(made >= 0 && write(made, "content", 7) == 7 && close(made) == 0);
  must(mkdir(scratch("dir"), 0700) == 0 && symlink("file", scratch("link")) == 0);
  int file = open(scratch("file"), O_PATH), dir = open(scratch("dir"), O_PATH | O_DIRECTORY | O_CLOEXEC);
  int link = open(scratch("link"), O_PATH | O_NOFOLLOW), null = open("/dev/null", O_PATH);
  must(file >= 0 && dir >= 0 && link >= 0 && null >= 0);
  ready();
  char text[64] = {0}, path[64];
  must((fcntl(file, F_GETFL) & O_PATH) != 0 && read(file, text, 1) == -1 && errno == EBADF);
  snprintf(path, sizeof path, "/proc/self/fd/%d", file);
  int fd = open(path, O_RDONLY);
  must(fd >= 0 && read(fd, text, sizeof text) == 7 && memcmp(text, "content", 7) == 0);
  must((fd = openat(dir, "inside", O_WRONLY | O_CREAT, 0600)) >= 0 &&
       access(scratch("dir/inside"), F_OK) == 0);
  must(fcntl(dir, F_GETFD) == FD_CLOEXEC);
  memset(text, 0, sizeof text);
  must(readlinkat(link, "", text, sizeof text) == 4 && strcmp(text, "file") == 0);
  struct stat st;
  must(fstat(link, &st) == 0 && S_ISLNK(st.st_mode) && fstat(null, &st) == 0 && S_ISCHR(st.st_mode));
  pass();
}
