/* mmap(2), MAP_PRIVATE of a file that was replaced by rename(2), as a package manager upgrades a library: the
 * program goes on with the old bytes; who opens the name finds the new ones. */
#include "areas.h"

int main(void) {
  int fd = pattern_file("library", 4 * PAGE, 1);
  const char* p = mmap(NULL, 4 * PAGE, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0);
  must(p != MAP_FAILED && close(fd) == 0);
  must(close(pattern_file("newer", 4 * PAGE, 2)) == 0 && rename(scratch("newer"), scratch("library")) == 0);
  ready();
  must(check_pattern(p, 4 * PAGE, 1) == 4 * PAGE);
  char page[PAGE];
  fd = open(scratch("library"), O_RDONLY);
  must(fd >= 0 && read(fd, page, PAGE) == (ssize_t)PAGE && check_pattern(page, PAGE, 2) == PAGE);
  pass();
}
