/* mmap(2) of a file that ends before the mapping does: zeros to the end of the last page, SIGBUS beyond. */
#include "areas.h"

#include <setjmp.h>

static sigjmp_buf out;

static void on_bus(int signal) {
  (void)signal;
  siglongjmp(out, 1);
}

static bool readable(volatile char* at) {
  if (sigsetjmp(out, 1) != 0) return false;
  (void)*at;
  return true;
}

int main(void) {
  int fd = open(scratch("short"), O_RDWR | O_CREAT, 0644);
  must(fd >= 0 && write(fd, "twenty bytes of data", 20) == 20);
  char* shared = mmap(NULL, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  char* private = mmap(NULL, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
  must(shared != MAP_FAILED && private != MAP_FAILED);
  private[0] = 'T';
  signal(SIGBUS, on_bus);
  ready();
  must(memcmp(shared, "twenty", 6) == 0 && shared[20] == 0 && shared[4095] == 0);
  must(memcmp(private, "Twenty", 6) == 0 && private[20] == 0);
  must(!readable(shared + PAGE) && !readable(private + PAGE) && !readable(private + 2 * PAGE));
  must(ftruncate(fd, 2 * PAGE) == 0 && readable(shared + PAGE) && readable(private + PAGE) &&
       !readable(shared + 2 * PAGE));
  pass();
}
