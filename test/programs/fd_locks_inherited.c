/* flock(2): a lock that parent and child hold together on one description, and a POSIX lock of a child that
 * its parent waits for. */
#include "meanwhile.h"

#include <sys/file.h>

static long take(void* arg) {
  struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 8};
  return fcntl(*(int*)arg, F_SETLKW, &l);
}

int main(void) {
  int fd = open(scratch("flock"), O_RDWR | O_CREAT, 0600),
      posix = open(scratch("posix"), O_RDWR | O_CREAT, 0600);
  must(fd >= 0 && posix >= 0 && flock(fd, LOCK_EX) == 0);
  make_gate();
  int told[2];
  char byte;
  must(pipe(told) == 0);
  pid_t child = fork_at_gate();
  if (child == 0) {
    must(take(&posix) == 0 && write(told[1], "x", 1) == 1);
    wait_at_gate();
    must(flock(open(scratch("flock"), O_RDWR), LOCK_EX | LOCK_NB) == -1);
    _exit(0);
  }
  must(read(told[0], &byte, 1) == 1 && close(fd) == 0); /* the child's descriptor keeps the lock */
  struct call waiting;
  call_in_thread(&waiting, SYS_fcntl, take, &posix);
  ready();
  still_inside(&waiting);
  int again = open(scratch("flock"), O_RDWR);
  must(again >= 0 && flock(again, LOCK_SH | LOCK_NB) == -1 && errno == EWOULDBLOCK);
  open_gate();
  ended_well(child);
  must(end_of_call(&waiting) == 0);
  must(flock(again, LOCK_EX | LOCK_NB) == 0);
  pass();
}
