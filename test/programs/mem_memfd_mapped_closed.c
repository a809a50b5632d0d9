/* memfd_create(2): memory of a memfd whose every descriptor is closed, mapped in two processes: one memory
 * still. */
#include "areas.h"
#include "relatives.h"

static char* p;

static void check(void) {
  must(check_pattern(p + 3 * PAGE, PAGE, 3) == PAGE);
  while (__atomic_load_n(p, __ATOMIC_ACQUIRE) != 'p') nap_ms(1);
  __atomic_store_n(p, 'c', __ATOMIC_RELEASE);
}

int main(void) {
  int fd = memfd_create("only mapped", MFD_CLOEXEC);
  must(fd >= 0 && ftruncate(fd, 64 * PAGE) == 0);
  p = mmap(NULL, 64 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  const char* tail = mmap(NULL, 8 * PAGE, PROT_READ, MAP_SHARED, fd, 56 * PAGE);
  must(p != MAP_FAILED && tail != MAP_FAILED && close(fd) == 0);
  fill_pattern(p + 3 * PAGE, PAGE, 3);
  fill_pattern(p + 60 * PAGE, PAGE, 60);
  pid_t child = relative(NULL, check);
  ready();
  struct area a;
  must(find_area(p, &a) && strcmp(a.path, "/memfd:only mapped (deleted)") == 0 &&
       strcmp(a.mode, "rw-s") == 0);
  must(find_area(tail, &a) && a.offset == 56 * PAGE && strcmp(a.mode, "r--s") == 0);
  must(check_pattern(p + 3 * PAGE, PAGE, 3) == PAGE && check_pattern(tail + 4 * PAGE, PAGE, 60) == PAGE);
  must(all_zero(p + 4 * PAGE, PAGE));
  __atomic_store_n(p, 'p', __ATOMIC_RELEASE);
  join_relative(child);
  must(*p == 'c');
  p[57 * PAGE] = 'q';
  must(tail[PAGE] == 'q');
  pass();
}
