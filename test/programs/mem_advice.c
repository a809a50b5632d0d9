/* madvise(2): advice that is remembered, as VmFlags of proc(5) shows it, and what it does at fork(2):
 * DONTFORK takes the memory away from the child, WIPEONFORK gives it zeros. */
#include "areas.h"

static const struct {
  int advice;
  const char* flag;
} kinds[] = {{MADV_DONTFORK, "dc"}, {MADV_DONTDUMP, "dd"},   {MADV_WIPEONFORK, "wf"},
             {MADV_HUGEPAGE, "hg"}, {MADV_NOHUGEPAGE, "nh"}, {MADV_SEQUENTIAL, "sr"},
             {MADV_RANDOM, "rr"},   {MADV_MERGEABLE, "mg"}};
enum { count = sizeof kinds / sizeof kinds[0] };

int main(void) {
  char* p = map_anonymous((2 * count + 2) * PAGE, MAP_PRIVATE);
  char before[count + 1][200];
  struct area a;
  fill_pattern(p, (2 * count + 2) * PAGE, 1);
  for (int i = 0; i < count; i++) must(madvise(p + (2 * i + 1) * PAGE, PAGE, kinds[i].advice) == 0);
  must(madvise(p + (2 * count + 1) * PAGE, PAGE, MADV_DONTDUMP) == 0);
  must(madvise(p + (2 * count + 1) * PAGE, PAGE, MADV_RANDOM) == 0); /* two at once */
  for (int i = 0; i <= count; i++) {
    must(find_area(p + (2 * i + 1) * PAGE, &a));
    strcpy(before[i], a.flags);
  }
  must(find_area(p, &a));
  char plain[200];
  strcpy(plain, a.flags);
  ready();
  for (int i = 0; i < count; i++) {
    must(has_flag(p + (2 * i + 1) * PAGE, kinds[i].flag) && !has_flag(p + 2 * i * PAGE, kinds[i].flag));
  }
  for (int i = 0; i <= count; i++) {
    must(find_area(p + (2 * i + 1) * PAGE, &a));
    if (strcmp(a.flags, before[i]) != 0) fail("flags%s are%s", before[i], a.flags);
    must(find_area(p + 2 * i * PAGE, &a) && strcmp(a.flags, plain) == 0);
  }
  must(check_pattern(p, (2 * count + 2) * PAGE, 1) == (2 * count + 2) * PAGE);
  pid_t child = fork();
  if (child == 0) {
    unsigned char there;
    if (mincore(p + PAGE, PAGE, &there) != -1 || errno != ENOMEM) _exit(1);
    if (!all_zero(p + 5 * PAGE, PAGE) || p[4 * PAGE] == 0) _exit(2);
    _exit(0);
  }
  int status;
  must(waitpid(child, &status, 0) == child && status == 0);
  pass();
}
