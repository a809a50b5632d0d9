/* signalfd(2): its mask, and signals that wait for it: queued ones with their data and one of a child. */
#include "behaviour.h"

#include <sys/signalfd.h>

int main(void) {
  sigset_t set, two;
  sigemptyset(&set), sigemptyset(&two);
  sigaddset(&set, SIGRTMIN + 1), sigaddset(&set, SIGUSR1), sigaddset(&two, SIGTERM), sigaddset(&two, SIGCHLD);
  sigprocmask(SIG_BLOCK, &set, NULL), sigprocmask(SIG_BLOCK, &two, NULL);
  int one = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC), other = signalfd(-1, &two, SFD_NONBLOCK);
  must(one >= 0 && other >= 0);
  for (int i = 0; i < 3; i++)
    must(sigqueue(getpid(), SIGRTMIN + 1, (union sigval){.sival_int = 100 + i}) == 0);
  pid_t child = fork();
  if (child == 0) _exit(9);
  siginfo_t info;
  must(waitid(P_PID, (id_t)child, &info, WEXITED | WNOWAIT) == 0);
  ready();
  must(fcntl(one, F_GETFD) == FD_CLOEXEC && fcntl(other, F_GETFD) == 0);
  struct signalfd_siginfo s;
  for (int i = 0; i < 3; i++) {
    must(read(one, &s, sizeof s) == sizeof s && s.ssi_signo == (unsigned)SIGRTMIN + 1 &&
         s.ssi_int == 100 + i);
    must(s.ssi_pid == (unsigned)getpid() && s.ssi_code == SI_QUEUE);
  }
  must(read(one, &s, sizeof s) == -1 && errno == EAGAIN);
  must(read(other, &s, sizeof s) == sizeof s && s.ssi_signo == SIGCHLD && s.ssi_pid == (unsigned)child &&
       s.ssi_status == 9);
  must(kill(getpid(), SIGTERM) == 0 && kill(getpid(), SIGUSR1) == 0);
  must(read(other, &s, sizeof s) == sizeof s && s.ssi_signo == SIGTERM);
  must(read(one, &s, sizeof s) == sizeof s && s.ssi_signo == SIGUSR1);
  pass();
}
