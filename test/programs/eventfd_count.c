/* eventfd(2): the counter and whether it is a semaphore. */
#include "behaviour.h"

#include <stdint.h>
#include <sys/eventfd.h>

int main(void) {
  int plain = eventfd(7, EFD_NONBLOCK), semaphore = eventfd(3, EFD_SEMAPHORE | EFD_NONBLOCK),
      empty = eventfd(0, EFD_NONBLOCK);
  must(plain >= 0 && semaphore >= 0 && empty >= 0);
  ready();
  uint64_t n = 0;
  must(read(plain, &n, 8) == 8 && n == 7);
  for (int i = 0; i < 3; i++) must(read(semaphore, &n, 8) == 8 && n == 1);
  must(read(semaphore, &n, 8) == -1 && errno == EAGAIN);
  must(read(empty, &n, 8) == -1 && errno == EAGAIN);
  pass();
}
