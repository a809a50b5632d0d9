/* mmap(2), MAP_NORESERVE: 64 GiB with a few pages in it, far apart; and address space that is only reserved
 * (PROT_NONE), part of which is put to use later. */
#include "areas.h"

int main(void) {
  const size_t size = 64UL << 30;
  char* p = map_anonymous(size, MAP_PRIVATE | MAP_NORESERVE);
  char* reserved = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  must(reserved != MAP_FAILED && madvise(p, size, MADV_NOHUGEPAGE) == 0);
  for (size_t i = 0; i < 64; i++) fill_pattern(p + (i << 30) + i * PAGE, PAGE, i);
  must(mprotect(reserved + (5UL << 30), 16 * PAGE, PROT_READ | PROT_WRITE) == 0);
  fill_pattern(reserved + (5UL << 30), PAGE, 100);
  ready();
  must(has_flag(p, "nr"));
  struct area a;
  must(find_area(p, &a) && a.end - a.start >= size && a.rss_kib == 64 * 4);
  for (size_t i = 0; i < 64; i++) must(check_pattern(p + (i << 30) + i * PAGE, PAGE, i) == PAGE);
  must(check_pattern(reserved + (5UL << 30), PAGE, 100) == PAGE &&
       all_zero(reserved + (5UL << 30) + PAGE, PAGE));
  must(find_area(reserved + (6UL << 30), &a) && strcmp(a.mode, "---p") == 0 && a.rss_kib == 0);
  must(mprotect(reserved + (63UL << 30), PAGE, PROT_READ | PROT_WRITE) == 0);
  reserved[63UL << 30] = 1;
  pass();
}
