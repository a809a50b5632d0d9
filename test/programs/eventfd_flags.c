/* eventfd(2): the highest count, O_NONBLOCK, one eventfd for two processes, and a writer that waits for room.
 */
#include "meanwhile.h"

#include <stdint.h>
#include <sys/eventfd.h>

static long add(void* arg) { return eventfd_write(*(int*)arg, 5); }

int main(void) {
  int full = eventfd(0, EFD_CLOEXEC), shared = eventfd(0, EFD_SEMAPHORE);
  must(full >= 0 && shared >= 0 && eventfd_write(full, UINT64_MAX - 1) == 0);
  make_gate();
  pid_t child = fork_at_gate();
  if (child == 0) {
    wait_at_gate();
    must(eventfd_write(shared, 2) == 0);
    _exit(0);
  }
  struct call blocked;
  call_in_thread(&blocked, SYS_write, add, &full);
  ready();
  still_inside(&blocked);
  must(fcntl(full, F_GETFD) == FD_CLOEXEC && (fcntl(full, F_GETFL) & O_NONBLOCK) == 0);
  uint64_t n = 0;
  must(eventfd_read(full, &n) == 0 && n == UINT64_MAX - 1);
  must(end_of_call(&blocked) == 0 && eventfd_read(full, &n) == 0 && n == 5);
  open_gate();
  must(eventfd_read(shared, &n) == 0 && n == 1 && eventfd_read(shared, &n) == 0 && n == 1);
  ended_well(child);
  pass();
}
