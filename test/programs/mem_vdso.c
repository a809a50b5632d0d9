/* vdso(7): its functions, called through pointers that were taken before, without entering the kernel for
 * what they can do themselves. */
#include "areas.h"

#include <sched.h>
#include <sys/auxv.h>
#include <sys/time.h>

int main(void) {
  int (*gettime)(clockid_t, struct timespec*) = clock_gettime;
  int (*day)(struct timeval* restrict, void* restrict) = gettimeofday;
  const char* base = (const char*)getauxval(AT_SYSINFO_EHDR);
  must(base != NULL && memcmp(base, "\177ELF", 4) == 0);
  struct timespec before;
  must(gettime(CLOCK_REALTIME, &before) == 0 && sched_getcpu() >= 0);
  ready();
  struct area a;
  must((const char*)getauxval(AT_SYSINFO_EHDR) == base && memcmp(base, "\177ELF", 4) == 0);
  must(find_area(base, &a) && strcmp(a.mode, "r-xp") == 0);
  struct timespec t, kernel;
  struct timeval v;
  const clockid_t clocks[] = {CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME, CLOCK_REALTIME_COARSE,
                              CLOCK_TAI};
  for (size_t i = 0; i < sizeof clocks / sizeof clocks[0]; i++) {
    must(gettime(clocks[i], &t) == 0 && syscall(SYS_clock_gettime, clocks[i], &kernel) == 0);
    double apart = (double)(kernel.tv_sec - t.tv_sec) + (double)(kernel.tv_nsec - t.tv_nsec) / 1e9;
    if (apart < -0.05 || apart > 20) fail("clock %d is %f s from the kernel's", (int)clocks[i], apart);
  }
  must(day(&v, NULL) == 0 && v.tv_sec >= before.tv_sec && v.tv_sec < before.tv_sec + 600 &&
       time(NULL) >= before.tv_sec);
  unsigned cpu = 999;
  must(sched_getcpu() >= 0 && syscall(SYS_getcpu, &cpu, NULL, NULL) == 0 && cpu < 999);
  /* What the vDSO answers is far faster than the kernel: a hundred thousand calls in a few milliseconds. */
  struct timespec from, to; /* of its own time: others' turns do not count */
  must(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &from) == 0);
  for (int i = 0; i < 100000; i++) gettime(CLOCK_MONOTONIC, &t);
  must(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &to) == 0);
  double ns = ((double)(to.tv_sec - from.tv_sec) * 1e9 + (double)(to.tv_nsec - from.tv_nsec)) / 1e5;
  if (ns > 5000) fail("a call takes %f ns", ns);
  pass();
}
