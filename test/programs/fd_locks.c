/* flock(2), fcntl(2): locks of all three kinds are still held and nobody else gets them: flock shared and
 * exclusive, POSIX ranges, OFD ranges; what was free still is. */
#include "meanwhile.h"

#include <sys/file.h>

static int file(const char* name) {
  int fd = open(scratch(name), O_RDWR | O_CREAT, 0600);
  must(fd >= 0 && ftruncate(fd, 100) == 0);
  return fd;
}

static int range(int fd, int command, short type, off_t start, off_t length) {
  struct flock l = {.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = length};
  return fcntl(fd, command, &l);
}

/* The kind of lock that keeps another process from the whole range, or F_UNLCK. */
static short held(const char* name, off_t start, off_t length, pid_t* by) {
  struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = start, .l_len = length};
  int fd = file(name);
  must(fcntl(fd, F_GETLK, &l) == 0 && close(fd) == 0);
  *by = l.l_pid;
  return l.l_type;
}

int main(void) {
  int exclusive = file("exclusive"), shared = file("shared"), posix = file("posix"), ofd = file("ofd");
  int twice = dup(posix);
  must(flock(exclusive, LOCK_EX) == 0 && flock(shared, LOCK_SH) == 0 && twice >= 0);
  must(range(posix, F_SETLK, F_WRLCK, 10, 10) == 0 && range(posix, F_SETLK, F_RDLCK, 50, 0) == 0);
  must(range(ofd, F_OFD_SETLK, F_WRLCK, 0, 5) == 0 && range(ofd, F_OFD_SETLK, F_RDLCK, 90, 5) == 0);
  ready();
  pid_t child = fork(), by = 0;
  must(child >= 0);
  if (child == 0) {
    must(flock(file("exclusive"), LOCK_SH | LOCK_NB) == -1 && errno == EWOULDBLOCK);
    must(flock(file("shared"), LOCK_EX | LOCK_NB) == -1 && flock(file("shared"), LOCK_SH | LOCK_NB) == 0);
    must(held("posix", 0, 100, &by) == F_WRLCK && by == getppid());
    must(held("posix", 50, 1000, &by) == F_RDLCK && by == getppid());
    must(held("posix", 0, 10, &by) == F_UNLCK && held("posix", 20, 30, &by) == F_UNLCK);
    must(held("ofd", 4, 10, &by) == F_WRLCK && held("ofd", 5, 85, &by) == F_UNLCK &&
         held("ofd", 94, 1, &by) == F_RDLCK);
    must(flock(exclusive, LOCK_UN) == 0); /* the description is ours as well */
    must(flock(file("exclusive"), LOCK_EX | LOCK_NB) == 0);
    _exit(0);
  }
  ended_well(child);
  must(close(twice) == 0); /* which drops the process's POSIX locks */
  must(range(posix, F_OFD_SETLK, F_WRLCK, 0, 100) == 0);
  pass();
}
