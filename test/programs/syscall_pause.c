/* pause(2): nothing but a caught signal ends it. */
#include "meanwhile.h"

static volatile sig_atomic_t handled;
static void handle(int s) { handled = s; }

static long stay(void* arg) {
  (void)arg;
  long result = pause();
  int error = errno;
  must(handled == SIGUSR1);
  errno = error;
  return result;
}

int main(void) {
  must(signal(SIGUSR1, handle) != SIG_ERR && signal(SIGUSR2, SIG_IGN) != SIG_ERR);
  struct call c;
  call_in_child(&c, SYS_pause, stay, NULL);
  ready();
  must(kill(c.pid, SIGUSR2) == 0);
  still_inside(&c);
  must(kill(c.pid, SIGUSR1) == 0);
  must(end_of_call(&c) == -1 && errno == EINTR);
  pass();
}
