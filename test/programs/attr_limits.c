/* getrlimit(2): soft and hard limits of two processes, lowered ones as well as untouched ones. */
#include "meanwhile.h"

#include <sys/resource.h>

static struct rlimit before[RLIM_NLIMITS];

static void check(void) {
  for (int i = 0; i < (int)RLIM_NLIMITS; i++) {
    struct rlimit now;
    must(getrlimit(i, &now) == 0);
    if (now.rlim_cur != before[i].rlim_cur || now.rlim_max != before[i].rlim_max)
      fail("limit %d is %ld/%ld, was %ld/%ld", i, (long)now.rlim_cur, (long)now.rlim_max,
           (long)before[i].rlim_cur, (long)before[i].rlim_max);
  }
}

static void lower(int which, rlim_t soft, rlim_t hard) {
  struct rlimit l = {soft, hard};
  must(setrlimit(which, &l) == 0);
}

int main(void) {
  lower(RLIMIT_CORE, 0, 1000);
  lower(RLIMIT_NOFILE, 40, 200);
  lower(RLIMIT_CPU, 100, 200);
  lower(RLIMIT_STACK, 1 << 20, 2 << 20);
  lower(RLIMIT_MEMLOCK, 0, 0);
  lower(RLIMIT_SIGPENDING, 50, 60);
  make_gate();
  pid_t child = fork_at_gate();
  if (child == 0) {
    lower(RLIMIT_NOFILE, 10, 10);
    lower(RLIMIT_FSIZE, 1 << 20, 1 << 21);
    for (int i = 0; i < (int)RLIM_NLIMITS; i++) must(getrlimit(i, &before[i]) == 0);
    wait_at_gate();
    check();
    _exit(0);
  }
  await_call(child, child, SYS_read);
  for (int i = 0; i < (int)RLIM_NLIMITS; i++) must(getrlimit(i, &before[i]) == 0);
  ready();
  check();
  open_gate();
  ended_well(child);
  pass();
}
