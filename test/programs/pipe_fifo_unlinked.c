/* fifo(7): a named pipe whose name is gone still carries what waits in it, between the processes that have
 * it. */
#include "meanwhile.h"

int main(void) {
  must(mkfifo(scratch("fifo"), 0600) == 0);
  int both = open(scratch("fifo"), O_RDWR), r = open(scratch("fifo"), O_RDONLY),
      w = open(scratch("fifo"), O_WRONLY);
  must(both >= 0 && r >= 0 && w >= 0 && close(both) == 0 && write(w, "waiting", 7) == 7);
  must(unlink(scratch("fifo")) == 0);
  make_gate();
  pid_t child = fork_at_gate();
  if (child == 0) {
    must(close(r) == 0);
    wait_at_gate();
    must(write(w, "more", 4) == 4);
    _exit(0);
  }
  must(close(w) == 0);
  ready();
  char text[16];
  struct stat st;
  must(fstat(r, &st) == 0 && S_ISFIFO(st.st_mode) && st.st_nlink == 0 && access(scratch("fifo"), F_OK) == -1);
  must(read(r, text, 16) == 7 && memcmp(text, "waiting", 7) == 0);
  open_gate();
  must(read(r, text, 16) == 4 && read(r, text, 16) == 0);
  ended_well(child);
  pass();
}
