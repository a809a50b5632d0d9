/* prctl(2), PR_SET_DUMPABLE: a process that may not be dumped is carried where we are root, and still may not be.
 * todo: an ordinary user's virt-run cannot read what /proc says of such a process, and refuses it by name */
#include "behaviour.h"

#include <sys/prctl.h>

int main(void) {
  must(prctl(PR_SET_DUMPABLE, 0) == 0);
  ready();
  must(prctl(PR_GET_DUMPABLE) == 0);
  pass();
}
