/* fork(2): parent and child share the offset of what was open before, under whatever numbers; what the child
 * opened itself is its own. */
#include "meanwhile.h"

int main(void) {
  int fd = open(scratch("file"), O_RDWR | O_CREAT, 0600);
  must(fd >= 0 && write(fd, "abcdefghij", 10) == 10 && lseek(fd, 1, SEEK_SET) == 1);
  make_gate();
  pid_t child = fork_at_gate();
  if (child == 0) {
    int own = open(scratch("file"), O_RDWR), moved = dup2(fd, 77);
    must(own >= 0 && moved == 77 && close(fd) == 0 && lseek(own, 8, SEEK_SET) == 8);
    must(write(1, "moved\n", 6) == 6);
    wait_at_gate();
    char c = 0;
    must(read(77, &c, 1) == 1 && c == 'c'); /* the parent has read b */
    must(read(own, &c, 1) == 1 && c == 'i');
    must(lseek(77, 6, SEEK_SET) == 6);
    _exit(0);
  }
  await_call(child, child, SYS_read);
  ready();
  char c = 0;
  must(read(fd, &c, 1) == 1 && c == 'b');
  open_gate();
  ended_well(child);
  must(read(fd, &c, 1) == 1 && c == 'g');
  pass();
}
