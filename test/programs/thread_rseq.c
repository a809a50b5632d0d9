/* rseq(2): each thread's registration: the kernel goes on writing the CPU's number into the thread's area. */
#include "meanwhile.h"

#include <sched.h>
#include <stddef.h>
#include <stdint.h>

struct area {
  uint32_t cpu_id_start, cpu_id;
};
extern const ptrdiff_t __rseq_offset __attribute__((weak));
extern const unsigned __rseq_size __attribute__((weak));

/* The kernel writes it again at the next chance it has: being moved is one. */
static void check(void) {
  volatile struct area* a = (struct area*)((char*)__builtin_thread_pointer() + __rseq_offset);
  cpu_set_t all, one;
  must(sched_getaffinity(0, sizeof all, &all) == 0);
  for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
    if (!CPU_ISSET(cpu, &all)) continue;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    must(sched_setaffinity(0, sizeof one, &one) == 0);
    if (a->cpu_id != (uint32_t)cpu) fail("on CPU %d the area says %u", cpu, a->cpu_id);
  }
}

static void* other(void* unused) {
  check();
  wait_at_gate();
  check();
  return unused;
}

int main(void) {
  pthread_t t;
  if (&__rseq_size == NULL || __rseq_size == 0)
    fail("the C library has not registered rseq (glibc does from 2.35 on)");
  check();
  make_gate();
  must(pthread_create(&t, NULL, other, NULL) == 0);
  ready();
  check();
  open_gate();
  must(pthread_join(t, NULL) == 0);
  pass();
}
