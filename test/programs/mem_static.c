/* A statically linked program without a dynamic linker: code, data, heap and thread-local memory.
 * flags: -static */
#include "areas.h"

static char zeroed[64 * 4096], filled[4 * 4096] = {1};
static __thread char own[8192];

int main(void) {
  char* heap = malloc(100000);
  must(heap != NULL);
  fill_pattern(heap, 99992, 1);
  fill_pattern(zeroed + 5 * PAGE, PAGE, 2);
  fill_pattern(filled, sizeof filled, 3);
  fill_pattern(own, sizeof own, 4);
  ready();
  must(check_pattern(heap, 99992, 1) == 99992 && check_pattern(zeroed + 5 * PAGE, PAGE, 2) == PAGE);
  must(check_pattern(filled, sizeof filled, 3) == sizeof filled &&
       check_pattern(own, sizeof own, 4) == sizeof own);
  must(all_zero(zeroed, 5 * PAGE) && all_zero(zeroed + 6 * PAGE, 10 * PAGE));
  char* more = malloc(3 << 20);
  must(more != NULL);
  memset(more, 1, 3 << 20);
  free(more);
  free(heap);
  pass();
}
