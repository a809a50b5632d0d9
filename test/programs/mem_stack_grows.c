/* mmap(2), MAP_GROWSDOWN, as the kernel makes the first stack: its content, its name, and it grows by deep
 * recursion as far as the limit lets it. */
#include "areas.h"

#include <sys/resource.h>

static unsigned depth(unsigned n, const volatile char* above) {
  volatile char here[4000];
  here[0] = (char)n;
  here[3999] = above == NULL ? 1 : above[0];
  if (n == 0) return (unsigned char)here[3999];
  unsigned below = depth(n - 1, here);
  return below + (here[0] == (char)n);
}

int main(void) {
  char local[2 * PAGE];
  fill_pattern(local, sizeof local, 9);
  struct rlimit limit;
  must(getrlimit(RLIMIT_STACK, &limit) == 0 && limit.rlim_cur >= 8 << 20);
  must(depth(40, NULL) == 41);
  struct area before, a;
  must(find_area(local, &before) && strcmp(before.path, "[stack]") == 0);
  ready();
  must(check_pattern(local, sizeof local, 9) == sizeof local);
  must(find_area(local, &a) && strcmp(a.path, "[stack]") == 0 && a.end == before.end &&
       strcmp(a.flags, before.flags) == 0);
  must(depth(1700, NULL) >= 1700); /* nearly 7 MiB */
  must(find_area(local, &a) && a.end - a.start > 6 << 20 && a.end == before.end);
  must(check_pattern(local, sizeof local, 9) == sizeof local);
  pass();
}
