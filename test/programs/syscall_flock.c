/* flock(2): whoever waits for a lock waits on, and gets it when its holder lets go. */
#include "meanwhile.h"

#include <sys/file.h>

static long lock(void* arg) {
  int fd = open(arg, O_RDWR);
  return fd < 0 ? -1 : flock(fd, LOCK_EX);
}

int main(void) {
  const char* path = scratch("lock");
  int fd = open(path, O_RDWR | O_CREAT, 0600);
  must(fd >= 0 && flock(fd, LOCK_EX) == 0);
  struct call c;
  call_in_child(&c, SYS_flock, lock, (void*)path);
  ready();
  still_inside(&c);
  must(flock(fd, LOCK_UN) == 0);
  must(end_of_call(&c) == 0);
  pass();
}
