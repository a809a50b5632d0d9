/* proc(5), /proc/PID/maps: the program's own mappings under their names: executable, C library, [heap],
 * [stack], [vdso], a file; each where it was, with offset, mode and VmFlags. */
#include "areas.h"

#include <sys/auxv.h>

static char data = 1;

int main(void) {
  int fd = pattern_file("mapped", 8 * PAGE, 1);
  const char* file = mmap(NULL, 2 * PAGE, PROT_READ, MAP_PRIVATE, fd, 4 * PAGE);
  char local = 1, *heap = malloc(100), name[256] = "";
  must(file != MAP_FAILED && heap != NULL && close(fd) == 0);
  const void* places[] = {(const void*)(uintptr_t)main,
                          &data,
                          heap,
                          &local,
                          (const void*)(uintptr_t)printf,
                          (const void*)getauxval(AT_SYSINFO_EHDR),
                          file};
  const char* names[] = {NULL, NULL, "[heap]", "[stack]", "libc", "[vdso]", scratch("mapped")};
  enum { count = sizeof places / sizeof places[0] };
  must(readlink("/proc/self/exe", name, sizeof name - 1) > 0);
  names[0] = names[1] = name;
  struct area before[count], a;
  for (int i = 0; i < count; i++) must(find_area(places[i], &before[i]));
  ready();
  for (int i = 0; i < count; i++) {
    must(find_area(places[i], &a));
    if (strstr(a.path, names[i]) == NULL) fail("'%s' instead of '%s'", a.path, names[i]);
    must(strcmp(a.path, before[i].path) == 0 && a.end == before[i].end && a.offset == before[i].offset);
    must(i == 3 || a.start == before[i].start);
    if (strcmp(a.mode, before[i].mode) != 0) fail("%s is %s instead of %s", a.path, a.mode, before[i].mode);
    if (strcmp(a.flags, before[i].flags) != 0)
      fail("%s has flags%s instead of%s", a.path, a.flags, before[i].flags);
  }
  char now[256] = "";
  must(readlink("/proc/self/exe", now, sizeof now - 1) > 0 && strcmp(now, name) == 0);
  pass();
}
