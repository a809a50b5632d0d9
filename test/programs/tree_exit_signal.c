/* clone(2): the signal a child sends when it ends is not always SIGCHLD; a child with another is found by
 * wait(2) with
 * __WCLONE. */
#include "meanwhile.h"

static volatile sig_atomic_t usr, chld;
static void on_usr(int s) { (void)s, usr++; }
static void on_chld(int s) { (void)s, chld++; }

int main(void) {
  must(signal(SIGUSR1, on_usr) != SIG_ERR && signal(SIGCHLD, on_chld) != SIG_ERR);
  make_gate();
  pid_t loud = (pid_t)syscall(SYS_clone, SIGUSR1, NULL, NULL, NULL, 0);
  must(loud >= 0);
  if (loud == 0) {
    leave_gate();
    wait_at_gate();
    _exit(1);
  }
  pid_t mute = (pid_t)syscall(SYS_clone, 0, NULL, NULL, NULL, 0);
  must(mute >= 0);
  if (mute == 0) {
    leave_gate();
    wait_at_gate();
    _exit(2);
  }
  ready();
  must(waitpid(-1, NULL, WNOHANG) == -1 && errno == ECHILD);
  open_gate();
  int status;
  while (waitpid(loud, &status, __WCLONE) == -1) must(errno == EINTR);
  must(WEXITSTATUS(status) == 1);
  while (waitpid(mute, &status, __WCLONE) == -1) must(errno == EINTR);
  must(WEXITSTATUS(status) == 2);
  must(usr == 1 && chld == 0);
  pass();
}
