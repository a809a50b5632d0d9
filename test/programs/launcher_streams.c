/* What the launcher gave as standard input, output and error: still open, dup'ed and inherited, with their
 * flags and O_APPEND-less writing, and what they are. */
#include "meanwhile.h"

int main(void) {
  int copy = fcntl(1, F_DUPFD_CLOEXEC, 30), error = dup(2);
  struct stat before[3], st;
  must(copy == 30 && error >= 0);
  for (int i = 0; i < 3; i++) must(fstat(i, &before[i]) == 0);
  make_gate();
  pid_t child = fork_at_gate();
  if (child == 0) {
    must(close(0) == 0 && close(2) == 0);
    wait_at_gate();
    must(fcntl(0, F_GETFD) == -1 && fcntl(2, F_GETFD) == -1 && write(copy, "from the child\n", 15) == 15);
    _exit(0);
  }
  await_call(child, child, SYS_read);
  ready();
  for (int i = 0; i < 3; i++)
    must(fstat(i, &st) == 0 && (st.st_mode & S_IFMT) == (before[i].st_mode & S_IFMT));
  must(fcntl(copy, F_GETFD) == FD_CLOEXEC && write(copy, "copy\n", 5) == 5 &&
       write(error, "error\n", 6) == 6);
  must(syscall(SYS_kcmp, getpid(), getpid(), 0, 1, copy) == 0 &&
       syscall(SYS_kcmp, getpid(), getpid(), 0, 2, error) == 0);
  char byte;
  must(read(0, &byte, 1) == 0);
  open_gate();
  ended_well(child);
  pass();
}
