/* mmap(2): private anonymous memory, every byte of it, with runs of equal pages and pages that differ in one
 * byte. */
#include "areas.h"

int main(void) {
  const size_t pages = 2048;
  char* p = map_anonymous(pages * PAGE, MAP_PRIVATE);
  for (size_t i = 0; i < pages; i++) {
    if (i % 64 < 8)
      memset(p + i * PAGE, 0x5a, PAGE); /* equal ones */
    else
      fill_pattern(p + i * PAGE, PAGE, i);
    if (i % 64 == 7) p[i * PAGE + 4095] = 1; /* … but for the last byte */
  }
  ready();
  for (size_t i = 0; i < pages; i++) {
    char* page = p + i * PAGE;
    if (i % 64 >= 8) {
      must(check_pattern(page, PAGE, i) == PAGE);
      continue;
    }
    for (size_t k = 0; k < PAGE; k++)
      if (page[k] != (i % 64 == 7 && k == 4095 ? 1 : 0x5a))
        fail("page %zu differs at byte %zu: %d", i, k, page[k]);
  }
  pass();
}
