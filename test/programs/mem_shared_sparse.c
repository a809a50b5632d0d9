/* mmap(2), shared anonymous memory of 16 GiB with a few pages in it: those come back, the others stay away.
 */
#include "areas.h"
#include "relatives.h"

static const size_t size = 16UL << 30;
static char* p;

static void check(void) {
  for (size_t i = 0; i < 32; i++) must(check_pattern(p + i * (size / 32), PAGE, i) == PAGE);
}

int main(void) {
  p = map_anonymous(size, MAP_SHARED | MAP_NORESERVE);
  for (size_t i = 0; i < 32; i++) fill_pattern(p + i * (size / 32), PAGE, i);
  pid_t child = relative(NULL, check);
  ready();
  must(has_flag(p, "nr"));
  struct area a;
  check();
  must(find_area(p, &a) && a.end - a.start == size && a.rss_kib == 32 * 4);
  must(populated(p + PAGE, 4096) == 0 && populated(p + size / 32, 4096) == 1);
  join_relative(child);
  pass();
}
