/* prctl(2): dumpable, subreaper, parent death signal, no_new_privs, huge pages off, memory deny
 * write-execute, the core dump filter, oom_score_adj, personality, all kept. */
#include "meanwhile.h"

#include <sys/personality.h>
#include <sys/prctl.h>

#ifndef PR_SET_MDWE
#define PR_SET_MDWE 65
#define PR_GET_MDWE 66
#endif

static void put(const char* path, const char* text) {
  int fd = open(path, O_WRONLY);
  must(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text) && close(fd) == 0);
}

static void expect(const char* path, const char* wanted) {
  char text[64];
  must(read_text(path, text, sizeof text) > 0);
  if (strcmp(text, wanted) != 0) fail("%s is %s", path, text);
}

int main(void) {
  int value = 0;
  make_gate();
  put("/proc/self/oom_score_adj", "600");
  put("/proc/self/coredump_filter", "0x7");
  must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) == 0);
  must(prctl(PR_SET_CHILD_SUBREAPER, 1) == 0 && personality(ADDR_NO_RANDOMIZE | SHORT_INODE) >= 0);
  must(prctl(PR_SET_MDWE, 1, 0, 0, 0) == 0 || errno == EINVAL); /* Linux 6.3 */
  int mdwe = prctl(PR_GET_MDWE, 0, 0, 0, 0);
  pid_t child = fork_at_gate();
  if (child == 0) {
    must(prctl(PR_SET_PDEATHSIG, SIGUSR1) == 0);
    wait_at_gate();
    must(prctl(PR_GET_PDEATHSIG, &value) == 0 && value == SIGUSR1);
    must(prctl(PR_GET_CHILD_SUBREAPER, &value) == 0 && value == 0);
    _exit(0);
  }
  nap_ms(20);
  ready();
  expect("/proc/self/oom_score_adj", "600\n");
  expect("/proc/self/coredump_filter", "00000007\n");
  must(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1 && prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0) == 1);
  must(prctl(PR_GET_CHILD_SUBREAPER, &value) == 0 && value == 1 && prctl(PR_GET_DUMPABLE) == 1);
  must(personality(0xffffffff) == (ADDR_NO_RANDOMIZE | SHORT_INODE));
  must(prctl(PR_GET_MDWE, 0, 0, 0, 0) == mdwe);
  open_gate();
  ended_well(child);
  pass();
}
