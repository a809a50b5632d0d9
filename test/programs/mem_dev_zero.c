/* null(4): mappings of /dev/zero, the old way to anonymous memory, private and shared. */
#include "areas.h"
#include "relatives.h"

static char* private, *shared;

static void check(void) {
  must(check_pattern(private + PAGE, PAGE, 1) == PAGE && check_pattern(shared + PAGE, PAGE, 2) == PAGE);
  private[0] = shared[0] = 'c';
}

int main(void) {
  int fd = open("/dev/zero", O_RDWR);
  must(fd >= 0);
  private = mmap(NULL, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
  shared = mmap(NULL, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  must(private != MAP_FAILED && shared != MAP_FAILED && close(fd) == 0);
  fill_pattern(private + PAGE, PAGE, 1);
  fill_pattern(shared + PAGE, PAGE, 2);
  pid_t child = relative(NULL, check);
  ready();
  join_relative(child);
  must(private[0] == 0 && shared[0] == 'c');
  must(check_pattern(private + PAGE, PAGE, 1) == PAGE && check_pattern(shared + PAGE, PAGE, 2) == PAGE);
  must(all_zero(private + 2 * PAGE, 6 * PAGE) && all_zero(shared + 2 * PAGE, 6 * PAGE));
  pass();
}
