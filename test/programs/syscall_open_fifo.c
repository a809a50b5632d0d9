/* open(2) of a FIFO for reading: it waits on until somebody opens it for writing (fifo(7)). */
#include "meanwhile.h"

static long open_it(void* arg) {
  int fd = open(arg, O_RDONLY);
  char byte = 0;
  must(fd < 0 || (read(fd, &byte, 1) == 1 && byte == 'f'));
  return fd < 0 ? -1 : 0;
}

int main(void) {
  const char* path = scratch("fifo");
  must(mkfifo(path, 0600) == 0);
  struct call c;
  call_in_child(&c, SYS_openat, open_it, (void*)path);
  ready();
  still_inside(&c);
  int fd = open(path, O_WRONLY);
  must(fd >= 0 && write(fd, "f", 1) == 1);
  must(end_of_call(&c) == 0);
  pass();
}
