/* mmap(2), MAP_PRIVATE of a file: pages that were written keep what was written and never reach the file; the
 * others are the file's own, which Linux shows by showing what is written to the file later. */
#include "areas.h"

int main(void) {
  const size_t pages = 64;
  int fd = pattern_file("data", pages * PAGE, 1);
  char* p = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
  must(p != MAP_FAILED);
  for (size_t i = 0; i < pages; i += 4) fill_pattern(p + i * PAGE, PAGE, 100 + i);
  ready();
  struct area a;
  must(find_area(p, &a) && strcmp(a.path, scratch("data")) == 0 && strcmp(a.mode, "rw-p") == 0 &&
       a.offset == 0);
  char page[PAGE], expected[PAGE];
  char* whole = malloc(pages * PAGE);
  fill_pattern(whole, pages * PAGE, 1);
  for (size_t i = 0; i < pages; i++) {
    if (i % 4 == 0)
      must(check_pattern(p + i * PAGE, PAGE, 100 + i) == PAGE);
    else
      must(memcmp(p + i * PAGE, whole + i * PAGE, PAGE) == 0);
    must(pread(fd, page, PAGE, (off_t)(i * PAGE)) == (ssize_t)PAGE &&
         memcmp(page, whole + i * PAGE, PAGE) == 0);
  }
  fill_pattern(expected, PAGE, 2);
  must(pwrite(fd, expected, PAGE, 5 * PAGE) == (ssize_t)PAGE && memcmp(p + 5 * PAGE, expected, PAGE) == 0);
  must(pwrite(fd, expected, PAGE, 4 * PAGE) == (ssize_t)PAGE &&
       check_pattern(p + 4 * PAGE, PAGE, 104) == PAGE);
  pass();
}
