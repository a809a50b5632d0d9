/* Code that the program has written itself and then protected (a just-in-time compiler): it runs, from
 * private memory and from a memfd that is mapped twice, writable here and executable there. */
#include "areas.h"

typedef int (*function)(int);

/* lea eax, [rdi + n]; ret */
static void assemble(char* at, signed char n) {
  const char code[] = {(char)0x8d, 0x47, (char)n, (char)0xc3};
  memcpy(at, code, sizeof code);
}

int main(void) {
  char* private = map_anonymous(2 * PAGE, MAP_PRIVATE);
  assemble(private, 5);
  assemble(private + PAGE + 100, 6);
  must(mprotect(private, 2 * PAGE, PROT_READ | PROT_EXEC) == 0);
  int fd = memfd_create("jit", MFD_CLOEXEC);
  must(fd >= 0 && ftruncate(fd, PAGE) == 0);
  char* write_view = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  char* run_view = mmap(NULL, PAGE, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
  must(write_view != MAP_FAILED && run_view != MAP_FAILED && close(fd) == 0);
  assemble(write_view, 7);
  function a = (function)(uintptr_t) private, b = (function)(uintptr_t)(private + PAGE + 100),
           c = (function)(uintptr_t)run_view;
  must(a(1) == 6 && b(1) == 7 && c(1) == 8);
  ready();
  must(a(10) == 15 && b(10) == 16 && c(10) == 17);
  assemble(write_view, 9);
  must(c(10) == 19);
  struct area area;
  must(find_area(private, &area) && strcmp(area.mode, "r-xp") == 0);
  must(find_area(run_view, &area) && strcmp(area.mode, "r-xs") == 0);
  pass();
}
