/* prctl(2), PR_SET_DUMPABLE: a process that may not be dumped is carried, and still may not be; so is a child that has
 * become dumpable again. */
#include "behaviour.h"

#include <sys/prctl.h>

int main(void) {
  must(prctl(PR_SET_DUMPABLE, 0) == 0);
  pid_t child = fork();
  must(child >= 0);
  if (child == 0 && prctl(PR_SET_DUMPABLE, 1) != 0) _exit(9);
  ready();
  if (child == 0) _exit(prctl(PR_GET_DUMPABLE) == 1 ? 0 : 1);
  must(prctl(PR_GET_DUMPABLE) == 0);
  int status;
  must(waitpid(child, &status, 0) == child && status == 0);
  pass();
}
