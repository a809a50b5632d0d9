/* mmap(2), MAP_SHARED of a file: what is written reaches the file and every other process that maps it,
 * before and after; a mapping of a file that was open for reading only cannot be made writable. */
#include "areas.h"
#include "relatives.h"

static char* p;
static int fd;

static void child_check(void) {
  must(check_pattern(p + PAGE, PAGE, 11) == PAGE);
  while (__atomic_load_n(p + 3 * PAGE, __ATOMIC_ACQUIRE) != 'x') nap_ms(1);
  __atomic_store_n(p + 3 * PAGE, 'y', __ATOMIC_RELEASE);
}

int main(void) {
  fd = pattern_file("data", 8 * PAGE, 1);
  p = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 2 * PAGE);
  int only = open(scratch("data"), O_RDONLY);
  const char* r = mmap(NULL, 8 * PAGE, PROT_READ, MAP_SHARED, only, 0);
  must(p != MAP_FAILED && r != MAP_FAILED && close(only) == 0);
  fill_pattern(p + PAGE, PAGE, 11);
  pid_t child = relative(NULL, child_check);
  ready();
  char page[PAGE];
  must(pread(fd, page, PAGE, 3 * PAGE) == (ssize_t)PAGE && check_pattern(page, PAGE, 11) == PAGE);
  must(check_pattern(r + 3 * PAGE, PAGE, 11) == PAGE && check_pattern(r, PAGE, 1) == PAGE);
  fill_pattern(p, PAGE, 12);
  must(pread(fd, page, PAGE, 2 * PAGE) == (ssize_t)PAGE && check_pattern(page, PAGE, 12) == PAGE);
  must(pwrite(fd, "later", 5, 4 * PAGE) == 5 && memcmp(p + 2 * PAGE, "later", 5) == 0);
  __atomic_store_n(p + 3 * PAGE, 'x', __ATOMIC_RELEASE);
  join_relative(child);
  must(p[3 * PAGE] == 'y' && r[5 * PAGE] == 'y');
  must(mprotect((void*)(uintptr_t)r, PAGE, PROT_READ | PROT_WRITE) == -1 && errno == EACCES);
  must(mprotect(p, PAGE, PROT_READ) == 0 && mprotect(p, PAGE, PROT_READ | PROT_WRITE) == 0);
  pass();
}
