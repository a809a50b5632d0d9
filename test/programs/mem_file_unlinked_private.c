/* mmap(2), MAP_PRIVATE of a file that nobody can reach any more (unlinked and closed): the bytes the program
 * sees, its own and the file's, are still those. */
#include "areas.h"

int main(void) {
  int fd = pattern_file("gone", 8 * PAGE, 1);
  char* p = mmap(NULL, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
  char* r = mmap(NULL, 4 * PAGE, PROT_READ, MAP_PRIVATE, fd, 4 * PAGE);
  must(p != MAP_FAILED && r != MAP_FAILED);
  must(unlink(scratch("gone")) == 0 && close(fd) == 0);
  fill_pattern(p + 2 * PAGE, PAGE, 2);
  ready();
  char whole[8 * PAGE];
  fill_pattern(whole, sizeof whole, 1);
  fill_pattern(whole + 2 * PAGE, PAGE, 2);
  must(memcmp(p, whole, 8 * PAGE) == 0);
  must(memcmp(r, whole + 4 * PAGE, 4 * PAGE) == 0);
  struct area a;
  must(find_area(r, &a) && strcmp(a.mode, "r--p") == 0);
  p[3 * PAGE] = 'x';
  must(r[0] == whole[4 * PAGE] && p[3 * PAGE] == 'x');
  pass();
}
