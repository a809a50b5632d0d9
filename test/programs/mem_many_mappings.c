/* mmap(2): two thousand small mappings, no two neighbours alike, each with its content. */
#include "areas.h"

int main(void) {
  const size_t count = 2000;
  char* p = map_anonymous(count * PAGE, MAP_PRIVATE);
  for (size_t i = 0; i < count; i++) {
    *(size_t*)(p + i * PAGE) = i + 1;
    *(size_t*)(p + i * PAGE + PAGE - 8) = ~i;
    if (i % 2 == 1) must(mprotect(p + i * PAGE, PAGE, PROT_READ) == 0);
  }
  for (size_t i = 0; i < count; i += 10) must(munmap(p + i * PAGE, PAGE) == 0);
  ready();
  char shown[5];
  size_t seen = 0;
  FILE* f = fopen("/proc/self/maps", "r");
  must(f != NULL);
  char line[512];
  while (fgets(line, sizeof line, f) != NULL) {
    unsigned long start, end;
    must(sscanf(line, "%lx-%lx %4s", &start, &end, shown) == 3);
    if (start < (uintptr_t)p || start >= (uintptr_t)p + count * PAGE) continue;
    size_t i = (start - (uintptr_t)p) / PAGE;
    must(end == start + PAGE && i % 10 != 0 && strcmp(shown, i % 2 == 1 ? "r--p" : "rw-p") == 0);
    must(*(size_t*)(p + i * PAGE) == i + 1 && *(size_t*)(p + i * PAGE + PAGE - 8) == ~i);
    seen++;
  }
  if (seen != count - count / 10) fail("%zu mappings instead of %zu", seen, count - count / 10);
  pass();
}
