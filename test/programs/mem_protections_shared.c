/* mprotect(2) of shared memory and of private mappings of files: content that may not be read now is there
 * when it may be again, and what was mapped writable can be made writable again. */
#include "areas.h"

int main(void) {
  int fd = pattern_file("data", 4 * PAGE, 1);
  char* anonymous = map_anonymous(4 * PAGE, MAP_SHARED);
  char* file = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
  char* shared = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  must(file != MAP_FAILED && shared != MAP_FAILED);
  fill_pattern(anonymous, 4 * PAGE, 2);
  fill_pattern(file + PAGE, PAGE, 3);
  must(mprotect(anonymous, 2 * PAGE, PROT_NONE) == 0 && mprotect(anonymous + 2 * PAGE, PAGE, PROT_READ) == 0);
  must(mprotect(file, 2 * PAGE, PROT_NONE) == 0 && mprotect(shared, 4 * PAGE, PROT_NONE) == 0);
  ready();
  struct area a;
  must(find_area(anonymous, &a) && strcmp(a.mode, "---s") == 0);
  must(find_area(anonymous + 2 * PAGE, &a) && strcmp(a.mode, "r--s") == 0);
  must(find_area(file, &a) && strcmp(a.mode, "---p") == 0);
  must(find_area(shared, &a) && strcmp(a.mode, "---s") == 0);
  must(mprotect(anonymous, 4 * PAGE, PROT_READ | PROT_WRITE) == 0 &&
       mprotect(file, 4 * PAGE, PROT_READ | PROT_WRITE) == 0);
  must(mprotect(shared, 4 * PAGE, PROT_READ | PROT_WRITE) == 0);
  must(check_pattern(anonymous, 4 * PAGE, 2) == 4 * PAGE);
  must(check_pattern(file, PAGE, 1) == PAGE && check_pattern(file + PAGE, PAGE, 3) == PAGE);
  must(check_pattern(shared, 4 * PAGE, 1) == 4 * PAGE);
  shared[0] = 'w';
  char c = 0;
  must(pread(fd, &c, 1, 0) == 1 && c == 'w');
  pass();
}
