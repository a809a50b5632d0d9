/* fcntl(2), F_SETLKW: whoever waits for a record lock waits on, and gets it when its holder lets go of that
 * range. */
#include "meanwhile.h"

static long lock(void* arg) {
  int fd = open(arg, O_RDWR);
  struct flock range = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 100, .l_len = 50};
  return fd < 0 ? -1 : fcntl(fd, F_SETLKW, &range);
}

int main(void) {
  const char* path = scratch("lock");
  int fd = open(path, O_RDWR | O_CREAT, 0600);
  struct flock range = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 200};
  must(fd >= 0 && fcntl(fd, F_SETLK, &range) == 0);
  struct call c;
  call_in_child(&c, SYS_fcntl, lock, (void*)path);
  ready();
  still_inside(&c);
  struct flock other = {.l_type = F_UNLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 100};
  must(fcntl(fd, F_SETLK, &other) == 0);
  still_inside(&c);
  range.l_type = F_UNLCK;
  must(fcntl(fd, F_SETLK, &range) == 0);
  must(end_of_call(&c) == 0);
  pass();
}
