/* mmap(2), shared anonymous memory of three relatives who map different parts of it (munmap(2) of the rest,
 * or moved by mremap(2)): each sees its part, and what one writes the others see. */
#include "areas.h"
#include "relatives.h"

static const size_t pages = 32;
static char *p, *moved;

static void first_prepare(void) { must(munmap(p + 16 * PAGE, 16 * PAGE) == 0); }
static void first_check(void) {
  for (size_t i = 0; i < 16; i++) must(check_pattern(p + i * PAGE, PAGE, i) == PAGE);
  must(mincore(p + 16 * PAGE, PAGE, (unsigned char[1]){0}) == -1 && errno == ENOMEM);
  fill_pattern(p + 15 * PAGE, PAGE, 115);
}

static void second_prepare(void) {
  must(munmap(p + 8 * PAGE, 4 * PAGE) == 0); /* a hole */
  moved = mremap(p, 8 * PAGE, 8 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, map_anonymous(8 * PAGE, MAP_PRIVATE));
  must(moved != MAP_FAILED);
}
static void second_check(void) {
  for (size_t i = 0; i < 8; i++) must(check_pattern(moved + i * PAGE, PAGE, i) == PAGE);
  for (size_t i = 16; i < pages; i++) must(check_pattern(p + i * PAGE, PAGE, i) == PAGE);
  while (check_pattern(p + 15 * PAGE, PAGE, 115) != PAGE) nap_ms(1);
  fill_pattern(p + 31 * PAGE, PAGE, 131);
}

int main(void) {
  p = map_anonymous(pages * PAGE, MAP_SHARED);
  for (size_t i = 0; i < pages; i++) fill_pattern(p + i * PAGE, PAGE, i);
  pid_t first = relative(first_prepare, first_check), second = relative(second_prepare, second_check);
  must(munmap(p, 12 * PAGE) == 0);
  ready();
  for (size_t i = 12; i < pages; i++)
    if (i != 15 && i != 31) must(check_pattern(p + i * PAGE, PAGE, i) == PAGE);
  join_relative(first);
  join_relative(second);
  must(check_pattern(p + 15 * PAGE, PAGE, 115) == PAGE && check_pattern(p + 31 * PAGE, PAGE, 131) == PAGE);
  pass();
}
