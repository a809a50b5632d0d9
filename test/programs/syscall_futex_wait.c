/* futex(2), FUTEX_WAIT: the waiter waits on, and one wake finds exactly one of two. */
#include "meanwhile.h"

#include <linux/futex.h>

static int word = 5;

static long wait_for(void* arg) {
  (void)arg;
  return syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 5, NULL, NULL, 0);
}

int main(void) {
  struct call c[2];
  for (int i = 0; i < 2; i++) call_in_thread(&c[i], SYS_futex, wait_for, NULL);
  ready();
  still_inside(&c[0]);
  still_inside(&c[1]);
  for (int i = 0; i < 2; i++) await_call(c[i].pid, c[i].tid, SYS_futex);
  must(syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0) == 1);
  for (int i = 0; i < 20000 && !__atomic_load_n(&c[0].done, __ATOMIC_SEQ_CST) &&
                  !__atomic_load_n(&c[1].done, __ATOMIC_SEQ_CST);
       i++)
    nap_ms(1);
  nap_ms(20);
  must(__atomic_load_n(&c[0].done, __ATOMIC_SEQ_CST) + __atomic_load_n(&c[1].done, __ATOMIC_SEQ_CST) == 1);
  must(syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, 9, NULL, NULL, 0) == 1);
  must(end_of_call(&c[0]) == 0 && end_of_call(&c[1]) == 0);
  pass();
}
