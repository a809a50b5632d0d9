/* signal(2): an ignored signal stays ignored, and one that is back at its default does what the default is.
 */
#include "behaviour.h"

int main(void) {
  must(signal(SIGTERM, SIG_IGN) != SIG_ERR && signal(SIGPIPE, SIG_IGN) != SIG_ERR &&
       signal(SIGRTMIN + 1, SIG_IGN) != SIG_ERR);
  must(signal(SIGUSR1, SIG_IGN) != SIG_ERR && signal(SIGUSR1, SIG_DFL) != SIG_ERR);
  int p[2];
  must(pipe(p) == 0 && close(p[0]) == 0);
  ready();
  must(raise(SIGTERM) == 0 && raise(SIGRTMIN + 1) == 0);
  must(write(p[1], "x", 1) == -1 && errno == EPIPE);
  pid_t child = fork();
  must(child >= 0);
  if (child == 0) {
    raise(SIGTERM);
    raise(SIGUSR1);
    _exit(1);
  }
  int status;
  must(waitpid(child, &status, 0) == child && WIFSIGNALED(status) && WTERMSIG(status) == SIGUSR1);
  pass();
}
