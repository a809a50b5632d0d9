/* Zombies: children that have exited and were not waited for yet, each with its exit code, name, group and
 * session. */
#include "meanwhile.h"

#include <sys/prctl.h>

static void check_name(pid_t pid, const char* name) {
  char path[64], text[64];
  snprintf(path, sizeof path, "/proc/%d/comm", (int)pid);
  must(read_text(path, text, sizeof text) > 0);
  text[strcspn(text, "\n")] = 0;
  if (strcmp(text, name) != 0) fail("the zombie is called '%s', not '%s'", text, name);
}

int main(void) {
  static const int codes[] = {0, 1, 7, 128, 255};
  enum { kZombies = 5 };
  pid_t zombie[kZombies];
  siginfo_t info;
  for (int i = 0; i < kZombies; i++) {
    zombie[i] = fork();
    must(zombie[i] >= 0);
    if (zombie[i] != 0) continue;
    prctl(PR_SET_NAME, "the late one");
    if (i == 1) setpgid(0, 0);
    if (i == 2) setsid();
    _exit(codes[i]);
  }
  for (int i = 0; i < kZombies; i++) must(waitid(P_PID, (id_t)zombie[i], &info, WEXITED | WNOWAIT) == 0);
  ready();
  for (int i = 0; i < kZombies; i++) {
    must(state_of(zombie[i]) == 'Z' && kill(zombie[i], 0) == 0);
    check_name(zombie[i], "the late one");
    must(getpgid(zombie[i]) == (i == 1 || i == 2 ? zombie[i] : getpgrp()));
    must(getsid(zombie[i]) == (i == 2 ? zombie[i] : getsid(0)));
  }
  memset(&info, 0, sizeof info);
  must(waitid(P_PID, (id_t)zombie[3], &info, WEXITED | WNOWAIT) == 0);
  must(info.si_code == CLD_EXITED && info.si_status == 128 && info.si_uid == getuid());
  for (int i = kZombies; i-- > 0;) {
    int status;
    must(waitpid(zombie[i], &status, WNOHANG) == zombie[i] && WIFEXITED(status) &&
         WEXITSTATUS(status) == codes[i]);
  }
  must(waitpid(-1, NULL, 0) == -1 && errno == ECHILD);
  pass();
}
