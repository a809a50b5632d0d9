/* madvise(2), MADV_GUARD_INSTALL (Linux 6.13): guard regions, which are no mappings of their own (newer C
 * libraries guard thread stacks so). Touching one is SIGSEGV, the pages beside are as they were. */
#include "areas.h"

#include <setjmp.h>

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#define MADV_GUARD_REMOVE 103
#endif

static sigjmp_buf out;

static void on_fault(int signal) {
  (void)signal;
  siglongjmp(out, 1);
}

static bool can_touch(volatile char* at) {
  if (sigsetjmp(out, 1) != 0) return false;
  (void)*at;
  return true;
}

int main(void) {
  char* p = map_anonymous(32 * PAGE, MAP_PRIVATE);
  fill_pattern(p + 8 * PAGE, PAGE, 1);
  fill_pattern(p + 11 * PAGE, PAGE, 2);
  if (madvise(p + 9 * PAGE, 2 * PAGE, MADV_GUARD_INSTALL) != 0) {
    must(errno == EINVAL); /* an older kernel */
    ready();
    pass();
  }
  must(madvise(p, 4 * PAGE, MADV_GUARD_INSTALL) == 0);
  signal(SIGSEGV, on_fault);
  ready();
  must(check_pattern(p + 8 * PAGE, PAGE, 1) == PAGE && check_pattern(p + 11 * PAGE, PAGE, 2) == PAGE);
  must(!can_touch(p + 9 * PAGE) && !can_touch(p + 10 * PAGE) && !can_touch(p) && !can_touch(p + 3 * PAGE));
  must(can_touch(p + 4 * PAGE) && can_touch(p + 7 * PAGE) && can_touch(p + 31 * PAGE));
  must(madvise(p, 12 * PAGE, MADV_GUARD_REMOVE) == 0 && can_touch(p + 9 * PAGE) && can_touch(p));
  must(check_pattern(p + 8 * PAGE, PAGE, 1) == PAGE);
  pass();
}
