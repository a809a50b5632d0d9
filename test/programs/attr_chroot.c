/* chroot(2): the root directory of a process that may choose one (root, where it has that right), and files
 * open in it. Whoever may not, may not afterwards either. */
#include "behaviour.h"

static void await_go(int where) {
  behaviour_say("READY\n");
  while (faccessat(where, "go", F_OK, 0) != 0) nap_ms(5);
}

int main(void) {
  char cwd[512];
  must(mkdir(scratch("jail"), 0755) == 0 && mkdir(scratch("jail/cell"), 0755) == 0);
  int outside = open(scratch("outside"), O_RDWR | O_CREAT, 0600);
  const char* dir = getenv("BEHAVIOUR_DIR");
  must(outside >= 0 && dir != NULL);
  int where = open(dir, O_RDONLY | O_DIRECTORY);
  if (chroot(scratch("jail")) != 0) {
    must(errno == EPERM && geteuid() != 0);
    await_go(where);
    must(chroot(scratch("jail")) == -1 && errno == EPERM && access("/etc", F_OK) == 0);
    pass();
  }
  must(chdir("/cell") == 0);
  int inside = open("file", O_RDWR | O_CREAT, 0600);
  must(inside >= 0 && write(inside, "x", 1) == 1);
  await_go(where);
  must(getcwd(cwd, sizeof cwd) != NULL && strcmp(cwd, "/cell") == 0);
  must(access("/cell/file", F_OK) == 0 && access("/etc", F_OK) == -1 && lseek(inside, 0, SEEK_CUR) == 1);
  must(write(outside, "y", 1) == 1 && chdir("/..") == 0 && access("cell", F_OK) == 0);
  pass();
}
