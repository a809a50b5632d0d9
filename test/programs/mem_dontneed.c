/* madvise(2), MADV_DONTNEED: what is given up reads as zeros in anonymous memory and as the file in a private
 * mapping of one; shared memory keeps it. */
#include "areas.h"

int main(void) {
  int fd = pattern_file("data", 4 * PAGE, 1);
  char *anonymous = map_anonymous(4 * PAGE, MAP_PRIVATE), *shared = map_anonymous(4 * PAGE, MAP_SHARED);
  char* file = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
  must(file != MAP_FAILED);
  fill_pattern(anonymous, 4 * PAGE, 2);
  fill_pattern(shared, 4 * PAGE, 3);
  fill_pattern(file, 4 * PAGE, 4);
  ready();
  must(madvise(anonymous + PAGE, PAGE, MADV_DONTNEED) == 0 && all_zero(anonymous + PAGE, PAGE));
  must(check_pattern(anonymous, PAGE, 2) == PAGE);
  must(madvise(shared, 4 * PAGE, MADV_DONTNEED) == 0 && check_pattern(shared, 4 * PAGE, 3) == 4 * PAGE);
  must(check_pattern(file, 4 * PAGE, 4) == 4 * PAGE);
  must(madvise(file, 4 * PAGE, MADV_DONTNEED) == 0 && check_pattern(file, 4 * PAGE, 1) == 4 * PAGE);
  must(madvise(anonymous, 4 * PAGE, MADV_FREE) == 0);
  char* grown = mremap(anonymous, 4 * PAGE, 64 * PAGE, MREMAP_MAYMOVE);
  must(grown != MAP_FAILED && all_zero(grown + 4 * PAGE, 60 * PAGE));
  pass();
}
