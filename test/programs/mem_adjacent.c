/* mmap(2): mappings of every kind side by side without a gap: each keeps its bounds, its object and its
 * content. */
#include "areas.h"

enum { each = 4 };

int main(void) {
  int fd = pattern_file("data", 8 * PAGE, 1), memory = memfd_create("beside", MFD_CLOEXEC);
  must(memory >= 0 && ftruncate(memory, 8 * PAGE) == 0);
  const int rw = PROT_READ | PROT_WRITE;
  const struct {
    int protection, flags, fd;
    size_t offset;
    const char* mode;
  } kinds[] = {
      {rw, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0, "rw-p"},
      {rw, MAP_PRIVATE, fd, PAGE, "rw-p"},
      {rw, MAP_SHARED, fd, 4 * PAGE, "rw-s"},
      {rw, MAP_SHARED, memory, 0, "rw-s"},
      {rw, MAP_PRIVATE, memory, 4 * PAGE, "rw-p"},
      {rw, MAP_SHARED | MAP_ANONYMOUS, -1, 0, "rw-s"},
      {PROT_READ, MAP_PRIVATE, fd, 0, "r--p"},
      {rw, MAP_SHARED | MAP_ANONYMOUS, -1, 0, "rw-s"},
      {PROT_READ, MAP_SHARED, memory, 4 * PAGE, "r--s"},
      {rw, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0, "rw-p"},
  };
  enum { count = sizeof kinds / sizeof kinds[0] };
  char* p = map_anonymous(count * each * PAGE, MAP_PRIVATE);
  struct area before[count];
  for (int i = 0; i < count; i++) {
    char* at = p + i * each * PAGE;
    must(mmap(at, each * PAGE, kinds[i].protection, kinds[i].flags | MAP_FIXED, kinds[i].fd,
              (off_t)kinds[i].offset) == at);
    if ((kinds[i].protection & PROT_WRITE) != 0) fill_pattern(at + PAGE, PAGE, 100 + i);
  }
  for (int i = 0; i < count; i++) must(find_area(p + i * each * PAGE, &before[i]));
  ready();
  for (int i = 0; i < count; i++) {
    char* at = p + i * each * PAGE;
    struct area a;
    must(find_area(at, &a));
    if (a.start != before[i].start || a.end != before[i].end || a.offset != before[i].offset ||
        strcmp(a.mode, kinds[i].mode) != 0)
      fail("mapping %d is %lx-%lx %s %lx, was %lx-%lx", i, a.start, a.end, a.mode, a.offset, before[i].start,
           before[i].end);
    if ((kinds[i].protection & PROT_WRITE) != 0) must(check_pattern(at + PAGE, PAGE, 100 + i) == PAGE);
  }
  p[3 * each * PAGE] = 'm'; /* the two shared anonymous ones and the memfd are three memories */
  p[5 * each * PAGE] = 'a';
  p[7 * each * PAGE] = 'b';
  must(p[5 * each * PAGE] == 'a' && p[3 * each * PAGE] == 'm');
  char c = 0;
  must(pread(memory, &c, 1, 0) == 1 && c == 'm');
  pass();
}
