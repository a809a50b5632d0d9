/* signal(7): signals sent by kill(2) that wait because they are blocked: each standard signal once, with who
 * sent it; also those that would be ignored were they not blocked. */
#include "behaviour.h"

int main(void) {
  static const int sent[] = {SIGUSR1, SIGUSR2, SIGTERM, SIGURG, SIGWINCH, SIGCONT};
  sigset_t set, none, pending;
  sigemptyset(&none);
  sigfillset(&set);
  must(sigprocmask(SIG_SETMASK, &set, NULL) == 0);
  pid_t child = fork();
  must(child >= 0);
  if (child == 0) {
    for (size_t i = 0; i < sizeof sent / sizeof sent[0]; i++) {
      must(kill(getppid(), sent[i]) == 0 && kill(getppid(), sent[i]) == 0);
    }
    _exit(0);
  }
  must(waitpid(child, NULL, 0) == child);
  ready();
  must(sigpending(&pending) == 0);
  for (size_t i = 0; i < sizeof sent / sizeof sent[0]; i++) must(sigismember(&pending, sent[i]) == 1);
  must(sigismember(&pending, SIGINT) == 0 && sigismember(&pending, SIGCHLD) == 1);
  const struct timespec now = {0, 0};
  for (size_t i = 0; i < sizeof sent / sizeof sent[0]; i++) {
    siginfo_t info;
    sigset_t one;
    sigemptyset(&one);
    sigaddset(&one, sent[i]);
    must(sigtimedwait(&one, &info, &now) == sent[i]);
    must(info.si_code == SI_USER && info.si_pid == child && info.si_uid == getuid());
    must(sigtimedwait(&one, &info, &now) == -1 && errno == EAGAIN);
  }
  pass();
}
