/* fork(2): private memory of parent and child. What both still share copy-on-write is right in both; what
 * either has written since is its own, and stays its own. */
#include "areas.h"
#include "relatives.h"

static const size_t pages = 1024;
static char* p;

static void child_prepare(void) {
  for (size_t i = 1; i < pages; i += 4) fill_pattern(p + i * PAGE, PAGE, 10000 + i);
}

static void child_check(void) {
  for (size_t i = 0; i < pages; i++)
    must(check_pattern(p + i * PAGE, PAGE, i % 4 == 1 ? 10000 + i : i) == PAGE);
  fill_pattern(p, PAGE, 77);
}

int main(void) {
  p = map_anonymous(pages * PAGE, MAP_PRIVATE);
  for (size_t i = 0; i < pages; i++) fill_pattern(p + i * PAGE, PAGE, i);
  pid_t child = relative(child_prepare, child_check);
  for (size_t i = 2; i < pages; i += 4) fill_pattern(p + i * PAGE, PAGE, 20000 + i);
  ready();
  join_relative(child);
  for (size_t i = 0; i < pages; i++)
    must(check_pattern(p + i * PAGE, PAGE, i % 4 == 2 ? 20000 + i : i) == PAGE);
  pass();
}
