/* brk(2): the heap's content and its end; it grows on from there, gives back, and is still called [heap]. */
#include "areas.h"

int main(void) {
  struct area a;
  must(find_area(&a, &a)); /* malloc(3) has its part of the heap now and moves the end no more */
  char* start = sbrk(0);
  must(sbrk(256 * 1024 + 100) == start); /* not a whole page */
  fill_pattern(start, 256 * 1024, 1);
  char* end = sbrk(0);
  ready();
  must(sbrk(0) == end && check_pattern(start, 256 * 1024, 1) == 256 * 1024);
  must(find_area(start, &a) && strcmp(a.path, "[heap]") == 0);
  must(sbrk(1 << 20) == end);
  fill_pattern((char*)(((uintptr_t)end + 15) & ~15UL), (1 << 20) - 16, 2);
  must(check_pattern(start, 256 * 1024, 1) == 256 * 1024);
  must(find_area(end + (1 << 20) - 1, &a) && strcmp(a.path, "[heap]") == 0);
  must(sbrk(-(1 << 20)) == end + (1 << 20) && sbrk(0) == end);
  must(sbrk(4096) == end && all_zero((char*)(((uintptr_t)end + 4095) & ~4095UL), 0));
  void* block = malloc(10000);
  must(block != NULL);
  free(block);
  pass();
}
