/* getcwd(3): each process's working directory, also one renamed since, and the umask. */
#include "meanwhile.h"

int main(void) {
  char cwd[512], now[512];
  must(mkdir(scratch("first"), 0700) == 0 && mkdir(scratch("first/inner"), 0700) == 0 &&
       chdir(scratch("first/inner")) == 0);
  must(rename(scratch("first"), scratch("second")) == 0 && getcwd(cwd, sizeof cwd) != NULL &&
       strstr(cwd, "second/inner") != NULL);
  umask(0137);
  make_gate();
  pid_t child = fork_at_gate();
  if (child == 0) {
    must(chdir("/") == 0);
    umask(0);
    wait_at_gate();
    must(getcwd(now, sizeof now) != NULL && strcmp(now, "/") == 0 && umask(0) == 0);
    _exit(0);
  }
  await_call(child, child, SYS_read);
  ready();
  must(getcwd(now, sizeof now) != NULL && strcmp(now, cwd) == 0);
  int fd = open("made", O_WRONLY | O_CREAT, 0666);
  struct stat st;
  must(fd >= 0 && stat(scratch("second/inner/made"), &st) == 0 && (st.st_mode & 0777) == 0640 &&
       umask(022) == 0137);
  open_gate();
  ended_well(child);
  pass();
}
