/* unlink(2): files that were unlinked while open, and O_TMPFILE ones: content with its holes, size, mode,
 * offset and flags, one file for two processes and for two descriptions of it. */
#include "meanwhile.h"

enum { size = 3 << 20, at = 2 << 20 };

int main(void) {
  int fd = open(scratch("gone"), O_RDWR | O_CREAT, 0640), again = open(scratch("gone"), O_RDONLY);
  int tmp = open(scratch("."), O_TMPFILE | O_RDWR | O_APPEND, 0600),
      empty = open(scratch("empty"), O_RDWR | O_CREAT, 0600);
  must(fd >= 0 && again >= 0 && tmp >= 0 && empty >= 0);
  must(pwrite(fd, "head", 4, 0) == 4 && pwrite(fd, "middle", 6, at) == 6 && ftruncate(fd, size) == 0);
  must(write(tmp, "temporary", 9) == 9);
  must(unlink(scratch("gone")) == 0 && unlink(scratch("empty")) == 0);
  must(lseek(fd, 100, SEEK_SET) == 100 && lseek(again, at, SEEK_SET) == at);
  struct stat before, st;
  must(fstat(fd, &before) == 0);
  make_gate();
  pid_t child = fork_at_gate();
  if (child == 0) {
    wait_at_gate();
    char text[7] = {0};
    must(read(again, text, 6) == 6 && strcmp(text, "middle") == 0);
    must(pwrite(fd, "child", 5, 50) == 5);
    _exit(0);
  }
  ready();
  open_gate();
  ended_well(child);
  char text[16] = {0};
  must(fstat(fd, &st) == 0 && st.st_size == size && st.st_mode == before.st_mode && st.st_nlink == 0);
  if (st.st_blocks > before.st_blocks + 16)
    fail("the holes are gone: %ld blocks, were %ld", (long)st.st_blocks, (long)before.st_blocks);
  must(lseek(fd, 0, SEEK_CUR) == 100 && lseek(again, 0, SEEK_CUR) == at + 6);
  must(pread(again, text, 4, 0) == 4 && memcmp(text, "head", 4) == 0);
  must(pread(again, text, 5, 50) == 5 && memcmp(text, "child", 5) == 0);
  must(pread(fd, text, 2, size - 2) == 2 && text[0] == 0 && text[1] == 0);
  must(write(again, "x", 1) == -1 && errno == EBADF);
  must((fcntl(tmp, F_GETFL) & (O_APPEND | O_ACCMODE)) == (O_APPEND | O_RDWR));
  must(write(tmp, "!", 1) == 1 && pread(tmp, text, 16, 0) == 10 && memcmp(text, "temporary!", 10) == 0);
  must(fstat(empty, &st) == 0 && st.st_size == 0 && st.st_nlink == 0);
  must(access(scratch("gone"), F_OK) == -1 && errno == ENOENT);
  pass();
}
