/* Memory that fills whole huge pages comes back in huge pages, where the mapping and the process allow them; its content,
 * its holes and its advice are what they were (madvise(2), ioctl_userfaultfd(2): UFFDIO_MOVE). */
#include <sys/prctl.h>
#include <sys/utsname.h>

#include "areas.h"

enum { count = 4 };
static const size_t huge = 2UL << 20;

static char* blocks(void) {
  char* room = map_anonymous((count + 2) * huge, MAP_PRIVATE);
  char* p = (char*)(((uintptr_t)room + huge - 1) & ~(huge - 1));
  must(mprotect(room, (size_t)(p - room) + PAGE, PROT_NONE) == 0); /* no neighbour to be joined with */
  return p;
}

static long huge_kib(const char* at) {
  struct area a;
  must(find_area(at, &a));
  return a.huge_kib;
}

/* Huge pages are to be had, and the kernel can move them (6.8). */
static bool expected(void) {
  const char* mode = getenv("BEHAVIOUR_MODE");
  struct utsname u;
  int major = 0, minor = 0;
  must(mode != NULL && uname(&u) == 0 && sscanf(u.release, "%d.%d", &major, &minor) == 2);
  char* probe = blocks();
  must(madvise(probe + huge, huge, MADV_HUGEPAGE) == 0);
  probe[huge] = 1;
  return (strcmp(mode, "once") == 0 || strcmp(mode, "thrice") == 0) &&
         (major > 6 || (major == 6 && minor >= 8)) && huge_kib(probe + huge) > 0;
}

int main(void) {
  char *plain = blocks(), *refused = blocks(), *holed = blocks(), *shut = blocks();
  must(madvise(refused + PAGE, count * huge, MADV_NOHUGEPAGE) == 0);
  for (int i = 0; i < 4; i++) {
    char* p = (char*[]){plain, refused, holed, shut}[i];
    fill_pattern(p + PAGE, count * huge, (uint64_t)i);
  }
  must(madvise(holed + 2 * huge + 7 * PAGE, PAGE, MADV_DONTNEED) == 0);
  memset(holed + 2 * huge + 9 * PAGE, 0, PAGE);
  must(mprotect(shut + PAGE, count * huge, PROT_READ) == 0);
  const bool want = expected();
  ready();
  must(check_pattern(plain + PAGE, count * huge, 0) == count * huge);
  must(check_pattern(refused + PAGE, count * huge, 1) == count * huge);
  must(check_pattern(shut + PAGE, count * huge, 3) == count * huge);
  const size_t before = 2 * huge + 6 * PAGE;
  must(check_pattern(holed + PAGE, before, 2) == before);
  must(populated(holed + 2 * huge + 7 * PAGE, 1) == 0 && all_zero(holed + 2 * huge + 9 * PAGE, PAGE));
  must(!has_flag(plain + PAGE, "hg") && !has_flag(plain + PAGE, "nh") && has_flag(refused + PAGE, "nh"));
  struct area a;
  must(find_area(shut + PAGE, &a) && strcmp(a.mode, "r--p") == 0);
  must(huge_kib(refused + PAGE) == 0);
  if (want && (huge_kib(plain + PAGE) < (count - 1) * 2048L || huge_kib(shut + PAGE) < (count - 1) * 2048L))
    fail("%ld and %ld KiB in huge pages", huge_kib(plain + PAGE), huge_kib(shut + PAGE));
  if (want && huge_kib(holed + PAGE) != (count - 2) * 2048L)
    fail("%ld KiB in huge pages", huge_kib(holed + PAGE));
  memset(plain + PAGE, 5, count * huge);
  must(madvise(plain + huge, huge, MADV_DONTNEED) == 0 && all_zero(plain + huge, huge));
  pass();
}
