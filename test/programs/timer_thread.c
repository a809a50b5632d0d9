/* timer_create(3), SIGEV_THREAD: the library's helper thread goes on calling. */
#include "meanwhile.h"

static int calls, value_was;
static void call(union sigval v) {
  __atomic_store_n(&value_was, v.sival_int, __ATOMIC_SEQ_CST),
      __atomic_add_fetch(&calls, 1, __ATOMIC_SEQ_CST);
}

int main(void) {
  struct sigevent e = {
      .sigev_notify = SIGEV_THREAD, .sigev_notify_function = call, .sigev_value.sival_int = 42};
  struct itimerspec t = {{0, 10000000}, {0, 10000000}};
  timer_t id;
  must(timer_create(CLOCK_MONOTONIC, &e, &id) == 0 && timer_settime(id, 0, &t, NULL) == 0);
  ready();
  int before = __atomic_load_n(&calls, __ATOMIC_SEQ_CST);
  for (int i = 0; i < 20000 && __atomic_load_n(&calls, __ATOMIC_SEQ_CST) < before + 3; i++) nap_ms(1);
  must(__atomic_load_n(&calls, __ATOMIC_SEQ_CST) >= before + 3 &&
       __atomic_load_n(&value_was, __ATOMIC_SEQ_CST) == 42);
  pass();
}
