/* mmap(2), MAP_SHARED | MAP_ANONYMOUS: one memory for parent and child, also pages that only one of them has
 * touched, and it stays one. */
#include "areas.h"
#include "relatives.h"

static const size_t pages = 300;
static char* p;

static void prepare(void) {
  for (size_t i = 1; i < pages; i += 3) fill_pattern(p + i * PAGE, PAGE, 1000 + i);
}

static void check(void) {
  for (size_t i = 0; i < pages; i += 3) must(check_pattern(p + i * PAGE, PAGE, i) == PAGE);
  for (size_t i = 2; i < pages; i += 3) must(all_zero(p + i * PAGE, PAGE));
  uint64_t* cell = (uint64_t*)(p + 2 * PAGE);
  __atomic_store_n(cell, 4, __ATOMIC_RELEASE); /* the zeros have been looked at */
  while (__atomic_load_n(cell, __ATOMIC_ACQUIRE) != 5) nap_ms(1);
  __atomic_store_n(cell, 6, __ATOMIC_RELEASE);
}

int main(void) {
  p = map_anonymous(pages * PAGE, MAP_SHARED);
  for (size_t i = 0; i < pages; i += 3) fill_pattern(p + i * PAGE, PAGE, i);
  pid_t child = relative(prepare, check);
  ready();
  for (size_t i = 0; i < pages; i += 3) must(check_pattern(p + i * PAGE, PAGE, i) == PAGE);
  for (size_t i = 1; i < pages; i += 3) must(check_pattern(p + i * PAGE, PAGE, 1000 + i) == PAGE);
  uint64_t* cell = (uint64_t*)(p + 2 * PAGE);
  while (__atomic_load_n(cell, __ATOMIC_ACQUIRE) != 4) nap_ms(1);
  __atomic_store_n(cell, 5, __ATOMIC_RELEASE);
  join_relative(child);
  must(*cell == 6);
  pass();
}
