/* Zombies that died of a signal: which one can be asked afterwards. */
#include "meanwhile.h"

#include <sys/resource.h>

int main(void) {
  static const int signals[] = {SIGTERM, SIGKILL, SIGSEGV, SIGABRT, SIGPIPE, SIGHUP, 40, 64};
  enum { kZombies = 8 };
  pid_t zombie[kZombies];
  siginfo_t info;
  struct rlimit none = {0, 0};
  must(setrlimit(RLIMIT_CORE, &none) == 0);
  for (int i = 0; i < kZombies; i++) {
    zombie[i] = fork();
    must(zombie[i] >= 0);
    if (zombie[i] != 0) continue;
    kill(getpid(), signals[i]);
    _exit(99);
  }
  for (int i = 0; i < kZombies; i++) must(waitid(P_PID, (id_t)zombie[i], &info, WEXITED | WNOWAIT) == 0);
  ready();
  for (int i = 0; i < kZombies; i++) {
    int status;
    must(waitpid(zombie[i], &status, WNOHANG) == zombie[i]);
    if (!WIFSIGNALED(status) || WTERMSIG(status) != signals[i])
      fail("status %#x instead of signal %d", (unsigned)status, signals[i]);
  }
  pass();
}
