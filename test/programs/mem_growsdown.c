/* mmap(2), MAP_GROWSDOWN of a program's own: touching the page below it makes it grow. */
#include "areas.h"

int main(void) {
  char* room = map_anonymous(16 << 20, MAP_PRIVATE | MAP_NORESERVE);
  char* top = room + (12 << 20);
  must(munmap(room, 16 << 20) == 0);
  char* p = mmap(top - 4 * PAGE, 4 * PAGE, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN | MAP_FIXED, -1, 0);
  must(p == top - 4 * PAGE);
  for (int i = 0; i < 8; i++) fill_pattern(top - (i + 1) * PAGE, PAGE, i);
  must(has_flag(p, "gd"));
  ready();
  for (int i = 0; i < 8; i++) must(check_pattern(top - (i + 1) * PAGE, PAGE, i) == PAGE);
  for (int i = 8; i < 64; i++) fill_pattern(top - (i + 1) * PAGE, PAGE, i);
  for (int i = 0; i < 64; i++) must(check_pattern(top - (i + 1) * PAGE, PAGE, i) == PAGE);
  struct area a;
  must(find_area(top - 1, &a) && a.end == (uintptr_t)top && a.start <= (uintptr_t)top - 64 * PAGE &&
       has_flag(p, "gd"));
  pass();
}
