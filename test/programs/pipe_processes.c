/* pipe(7): ends in different processes: end of file when the last writer closes, also when a writer is a
 * grandchild, and what an ended writer has left is still there. */
#include "meanwhile.h"

int main(void) {
  int p[2], left[2];
  must(pipe(p) == 0 && pipe(left) == 0);
  make_gate();
  pid_t child = fork_at_gate();
  if (child == 0) {
    must(close(p[0]) == 0 && close(left[0]) == 0 && write(left[1], "left", 4) == 4 && close(left[1]) == 0);
    must(write(p[1], "child ", 6) == 6);
    pid_t grandchild = fork();
    must(grandchild >= 0);
    wait_at_gate();
    must(write(p[1], grandchild == 0 ? "grandchild" : "parent", grandchild == 0 ? 10 : 6) > 0);
    if (grandchild != 0) ended_well(grandchild);
    _exit(0);
  }
  must(close(p[1]) == 0 && close(left[1]) == 0);
  char text[64] = {0};
  must(read(p[0], text, 3) == 3);
  await_call(child, child, SYS_read);
  ready();
  must(read(p[0], text, sizeof text) == 3 && memcmp(text, "ld ", 3) == 0);
  must(read(left[0], text, sizeof text) == 4 && read(left[0], text, 1) == 0);
  open_gate();
  size_t n = 0;
  for (ssize_t got; (got = read(p[0], text, sizeof text)) > 0;) n += (size_t)got;
  must(n == 16);
  ended_well(child);
  pass();
}
