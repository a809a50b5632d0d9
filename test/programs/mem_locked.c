/* mlock(2): a locked range is locked still, and only that; memory locked as it is touched (MLOCK_ONFAULT) is
 * not filled by it. */
#include "areas.h"

#include <sys/syscall.h>

static long locked_kib(void) {
  FILE* f = fopen("/proc/self/status", "r");
  char line[256];
  long n = -1;
  while (fgets(line, sizeof line, f) != NULL) sscanf(line, "VmLck: %ld", &n);
  fclose(f);
  return n;
}

int main(void) {
  char *p = map_anonymous(64 * PAGE, MAP_PRIVATE), *q = map_anonymous(64 * PAGE, MAP_PRIVATE);
  must(mlock(p + 16 * PAGE, 16 * PAGE) == 0);
  must(mlock2(q, 64 * PAGE, MLOCK_ONFAULT) == 0);
  fill_pattern(p + 20 * PAGE, PAGE, 1);
  fill_pattern(q + 20 * PAGE, PAGE, 2);
  long before = locked_kib();
  struct area a, b;
  must(find_area(q, &b) && populated(q, 64) == 1 && before == 80 * 4);
  ready();
  must(has_flag(p + 16 * PAGE, "lo") && !has_flag(p, "lo") && !has_flag(p + 32 * PAGE, "lo"));
  must(find_area(p + 16 * PAGE, &a) && a.start == (uintptr_t)p + 16 * PAGE &&
       a.end == (uintptr_t)p + 32 * PAGE);
  must(a.rss_kib == 16 * 4 && a.locked_kib == 16 * 4);
  must(locked_kib() == before);
  must(check_pattern(p + 20 * PAGE, PAGE, 1) == PAGE && check_pattern(q + 20 * PAGE, PAGE, 2) == PAGE);
  must(munlock(p + 16 * PAGE, 16 * PAGE) == 0 && locked_kib() == 64 * 4);
  must(find_area(q, &a) && strcmp(a.flags, b.flags) == 0);
  if (populated(q, 64) != 1)
    fail("%zu pages of memory locked on fault are there instead of 1", populated(q, 64));
  pass();
}
