/* Process tree: children, grandchildren and their children, each with its pid, parent, group and session, and
 * each able to wait for its own. */
#include "meanwhile.h"

struct place {
  pid_t pid, parent, group, session;
};

static struct place place(void) { return (struct place){getpid(), getppid(), getpgrp(), getsid(0)}; }

static void live(int depth) {
  pid_t child[2] = {0, 0};
  for (int i = 0; i < 2 && depth > 0; i++) {
    child[i] = fork();
    must(child[i] >= 0);
    if (child[i] != 0) continue;
    if (i == 0) must(setpgid(0, 0) == 0);
    live(depth - 1);
    _exit(0);
  }
  struct place before = place();
  wait_at_gate();
  struct place after = place();
  must(memcmp(&before, &after, sizeof before) == 0);
  for (int i = 0; i < 2 && depth > 0; i++) ended_well(child[i]);
  must(waitpid(-1, NULL, 0) == -1 && errno == ECHILD);
}

int main(void) {
  make_gate();
  pid_t child = fork_at_gate();
  if (child == 0) {
    live(3);
    _exit(0);
  }
  struct place before = place();
  nap_ms(20);
  ready();
  struct place after = place();
  must(memcmp(&before, &after, sizeof before) == 0);
  open_gate();
  ended_well(child);
  pass();
}
