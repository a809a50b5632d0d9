/* mmap(2), MAP_SHARED of a file that was unlinked while it is open: mapping and descriptors show one file
 * still. */
#include "areas.h"

int main(void) {
  int fd = pattern_file("gone", 4 * PAGE, 1);
  char* p = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  const char* r = mmap(NULL, 2 * PAGE, PROT_READ, MAP_SHARED, fd, 2 * PAGE);
  must(p != MAP_FAILED && r != MAP_FAILED && unlink(scratch("gone")) == 0);
  fill_pattern(p + PAGE, PAGE, 2);
  ready();
  char page[PAGE], whole[4 * PAGE];
  fill_pattern(whole, sizeof whole, 1);
  must(memcmp(p, whole, PAGE) == 0 && check_pattern(p + PAGE, PAGE, 2) == PAGE);
  must(memcmp(r, whole + 2 * PAGE, 2 * PAGE) == 0);
  must(pread(fd, page, PAGE, PAGE) == (ssize_t)PAGE && check_pattern(page, PAGE, 2) == PAGE);
  fill_pattern(p + 2 * PAGE, PAGE, 3);
  must(pread(fd, page, PAGE, 2 * PAGE) == (ssize_t)PAGE && check_pattern(page, PAGE, 3) == PAGE);
  must(check_pattern(r, PAGE, 3) == PAGE);
  must(pwrite(fd, "later", 5, 3 * PAGE) == 5 && memcmp(p + 3 * PAGE, "later", 5) == 0);
  struct stat st;
  must(fstat(fd, &st) == 0 && st.st_nlink == 0 && st.st_size == 4 * (off_t)PAGE);
  must(access(scratch("gone"), F_OK) == -1);
  pass();
}
