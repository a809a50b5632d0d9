/* mmap(2): of a large mapping only the pages that were touched are there, with what was written; the others
 * stay unpopulated and read as zeros. */
#include "areas.h"

int main(void) {
  const size_t step = 1 << 20, count = 1000;
  char* p = map_anonymous(step * count, MAP_PRIVATE | MAP_NORESERVE);
  must(madvise(p, step * count, MADV_NOHUGEPAGE) == 0);
  for (size_t i = 0; i < count; i++) fill_pattern(p + i * step + i % 256 * PAGE, PAGE, i);
  must(populated(p, step * count / PAGE) == count);
  ready();
  size_t there = populated(p, step * count / PAGE);
  if (there != count) fail("%zu pages are populated instead of %zu", there, count);
  struct area a;
  must(find_area(p, &a) && a.start == (uintptr_t)p && a.end == (uintptr_t)p + step * count);
  must(a.rss_kib == (long)count * 4);
  for (size_t i = 0; i < count; i++) {
    must(check_pattern(p + i * step + i % 256 * PAGE, PAGE, i) == PAGE);
    must(all_zero(p + i * step + (i + 1) % 256 * PAGE, PAGE));
  }
  pass();
}
