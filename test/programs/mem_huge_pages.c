/* madvise(2), MADV_HUGEPAGE: content that lies in transparent huge pages, also where only part of one was
 * written or its protection was taken away; and where there were huge pages there are some again. */
#include "areas.h"

int main(void) {
  const size_t huge = 2UL << 20, count = 8;
  char* room = map_anonymous((count + 1) * huge, MAP_PRIVATE);
  char* p = (char*)(((uintptr_t)room + huge - 1) & ~(huge - 1));
  must(madvise(p, count * huge, MADV_HUGEPAGE) == 0);
  for (size_t i = 0; i < count; i++) fill_pattern(p + i * huge + i * 10 * PAGE, 8 * PAGE, i);
  must(mprotect(p + 6 * huge, huge, PROT_READ) == 0 && mprotect(p + 7 * huge, huge, PROT_NONE) == 0);
  struct area a;
  must(find_area(p, &a));
  bool any = a.huge_kib > 0; /* the kernel may have had none */
  ready();
  must(mprotect(p + 7 * huge, huge, PROT_READ) == 0);
  for (size_t i = 0; i < count; i++) {
    char* at = p + i * huge + i * 10 * PAGE;
    must(check_pattern(at, 8 * PAGE, i) == 8 * PAGE && all_zero(at + 8 * PAGE, PAGE));
    if (i > 0) must(all_zero(at - PAGE, PAGE));
  }
  must(has_flag(p, "hg") && has_flag(p + 7 * huge, "hg"));
  must(find_area(p, &a));
  if (any && a.huge_kib == 0) fail("no huge pages any more");
  must(find_area(p + 6 * huge, &a) && strcmp(a.mode, "r--p") == 0);
  pass();
}
