/* mmap(2): pages that hold zeros, whether written so, only read, or zeroed after use, read as zeros; a page
 * beside them does not. */
#include "areas.h"

int main(void) {
  const size_t pages = 512;
  char* p = map_anonymous(pages * PAGE, MAP_PRIVATE);
  must(madvise(p, pages * PAGE, MADV_NOHUGEPAGE) == 0);
  volatile char sum = 0;
  for (size_t i = 0; i < pages; i++) {
    char* page = p + i * PAGE;
    switch (i % 4) {
      case 0:
        memset(page, 0, PAGE);
        break;
      case 1:
        sum += *page;
        break;
      case 2:
        memset(page, 7, PAGE), memset(page, 0, PAGE);
        break;
      case 3:
        page[i % PAGE] = 3;
        break;
    }
  }
  ready();
  for (size_t i = 0; i < pages; i++) {
    char* page = p + i * PAGE;
    if (i % 4 != 3) {
      must(all_zero(page, PAGE));
      continue;
    }
    must(page[i % PAGE] == 3);
    page[i % PAGE] = 0;
    must(all_zero(page, PAGE));
  }
  must(sum == 0);
  pass();
}
