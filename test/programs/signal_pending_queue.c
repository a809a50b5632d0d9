/* sigqueue(3): real-time signals that wait, several of one number, each with its value, in the order in which
 * they were sent, lowest number first (signal(7)). */
#include "behaviour.h"

int main(void) {
  sigset_t set;
  siginfo_t info;
  sigemptyset(&set);
  for (int i = 0; i < 3; i++) sigaddset(&set, SIGRTMIN + i);
  must(sigprocmask(SIG_BLOCK, &set, NULL) == 0);
  for (int i = 0; i < 60; i++) {
    union sigval value = {.sival_ptr = (void*)(0x123400000000 + i)};
    must(sigqueue(getpid(), SIGRTMIN + 2 - i % 3, value) == 0);
  }
  ready();
  const struct timespec now = {0, 0};
  for (int number = 0; number < 3; number++) {
    for (int i = 2 - number; i < 60; i += 3) {
      must(sigtimedwait(&set, &info, &now) == SIGRTMIN + number);
      must(info.si_code == SI_QUEUE && info.si_pid == getpid() && info.si_uid == getuid());
      must(info.si_value.sival_ptr == (void*)(0x123400000000 + i));
    }
  }
  must(sigtimedwait(&set, &info, &now) == -1 && errno == EAGAIN);
  pass();
}
