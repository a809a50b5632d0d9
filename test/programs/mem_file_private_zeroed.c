/* mmap(2), MAP_PRIVATE of a file: a page that the program has overwritten with zeros is zero, whatever the
 * file holds there. So it is in a program's own initialised data, and in a private mapping of a memfd. */
#include "areas.h"

static char data[3 * PAGE] __attribute__((aligned(4096))) = {1, 2, 3, [PAGE] = 4, [2 * PAGE] = 5};

int main(void) {
  int fd = pattern_file("data", 4 * PAGE, 1), memory = memfd_create("zeroed", MFD_CLOEXEC);
  char whole[4 * PAGE];
  fill_pattern(whole, sizeof whole, 1);
  must(memory >= 0 && write(memory, whole, sizeof whole) == sizeof whole);
  char* p = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
  char* m = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, memory, 0);
  must(p != MAP_FAILED && m != MAP_FAILED);
  memset(p + PAGE, 0, PAGE);
  memset(m + 2 * PAGE, 0, PAGE);
  memset(data + PAGE, 0, PAGE);
  ready();
  must(memcmp(p, whole, PAGE) == 0 && all_zero(p + PAGE, PAGE) &&
       memcmp(p + 2 * PAGE, whole + 2 * PAGE, 2 * PAGE) == 0);
  must(memcmp(m, whole, 2 * PAGE) == 0 && all_zero(m + 2 * PAGE, PAGE) &&
       memcmp(m + 3 * PAGE, whole + 3 * PAGE, PAGE) == 0);
  must(data[0] == 1 && data[2] == 3 && all_zero(data + PAGE, PAGE) && data[2 * PAGE] == 5);
  pass();
}
