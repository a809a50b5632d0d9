/* credentials(7): user and group ids of all kinds, groups, capability sets and secure bits are what they
 * were; as root also those of a child that gave them up. */
#include "meanwhile.h"

#include <grp.h>
#include <sys/prctl.h>

static char before[8192];

static size_t facts(char* to) {
  char status[4096];
  size_t n = 0;
  must(read_text("/proc/self/status", status, sizeof status) > 0);
  static const char* const keys[] = {
      "Uid:", "Gid:", "Groups:", "CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:", "NoNewPrivs:"};
  for (int i = 0; i < 9; i++) {
    char* line = strstr(status, keys[i]);
    must(line != NULL);
    n += (size_t)sprintf(to + n, "%.*s ", (int)strcspn(line, "\n"), line);
  }
  n += (size_t)sprintf(to + n, "secure bits %d keep %d", prctl(PR_GET_SECUREBITS), prctl(PR_GET_KEEPCAPS));
  return n;
}

static void same(void) {
  char now[8192];
  facts(now);
  if (strcmp(now, before) != 0) fail("%s\nwas %s", now, before);
}

int main(void) {
  make_gate();
  pid_t child = fork_at_gate();
  if (child == 0) {
    if (geteuid() == 0) {
      gid_t groups[] = {7, 1000, 30};
      must(prctl(PR_SET_SECUREBITS, 1 << 4 | 1 << 2, 0, 0, 0) == 0 ||
           errno == EPERM); /* keep-caps, no-setuid-fixup */
      if (setgroups(3, groups) == 0) must(setresgid(5, 6, 7) == 0 && setresuid(1001, 65534, 0) == 0);
    }
    prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0);
    facts(before);
    wait_at_gate();
    same();
    _exit(0);
  }
  await_call(child, child, SYS_read);
  facts(before);
  ready();
  same();
  open_gate();
  ended_well(child);
  pass();
}
