/* memfd_create(2): content, size, offset, seals, name and mode; one memfd for two processes and two
 * descriptions. */
#include "meanwhile.h"

#include <sys/mman.h>

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 8U
#endif
#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x10
#endif

int main(void) {
  int plain = memfd_create("plain one", MFD_CLOEXEC), sealed = memfd_create("sealed", MFD_ALLOW_SEALING);
  int future = memfd_create("future", MFD_ALLOW_SEALING), open_to = memfd_create("open", MFD_ALLOW_SEALING);
  int no_exec = memfd_create("noexec", MFD_NOEXEC_SEAL);
  must(plain >= 0 && sealed >= 0 && future >= 0 && open_to >= 0 && no_exec >= 0);
  must(pwrite(plain, "far", 3, 100000) == 3 && write(sealed, "fixed", 5) == 5 &&
       write(future, "before", 6) == 6);
  char* view = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, future, 0);
  must(view != MAP_FAILED);
  must(fcntl(sealed, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) == 0);
  must(fcntl(future, F_ADD_SEALS, F_SEAL_FUTURE_WRITE) == 0);
  int again = open("/proc/self/fd/3", O_RDONLY);
  must(plain == 3 && again >= 0 && lseek(again, 100001, SEEK_SET) == 100001);
  int fds[] = {plain, sealed, future, open_to, no_exec}, seals[5];
  char link[5][64] = {{0}}, path[64], now[64];
  struct stat mode[5], st;
  for (int i = 0; i < 5; i++) {
    snprintf(path, sizeof path, "/proc/self/fd/%d", fds[i]);
    must(readlink(path, link[i], 63) > 0 && (seals[i] = fcntl(fds[i], F_GET_SEALS)) >= 0 &&
         fstat(fds[i], &mode[i]) == 0);
  }
  make_gate();
  pid_t child = fork_at_gate();
  if (child == 0) {
    wait_at_gate();
    must(pwrite(plain, "child", 5, 0) == 5);
    _exit(0);
  }
  ready();
  for (int i = 0; i < 5; i++) {
    memset(now, 0, sizeof now);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fds[i]);
    must(readlink(path, now, 63) > 0 && strcmp(now, link[i]) == 0 && fstat(fds[i], &st) == 0);
    if (fcntl(fds[i], F_GET_SEALS) != seals[i])
      fail("seals of %s are %#x, were %#x", link[i], (unsigned)fcntl(fds[i], F_GET_SEALS),
           (unsigned)seals[i]);
    if (st.st_mode != mode[i].st_mode || st.st_size != mode[i].st_size)
      fail("%s has mode %o, had %o", link[i], st.st_mode, mode[i].st_mode);
  }
  open_gate();
  ended_well(child);
  char text[8] = {0};
  must(read(again, text, 8) == 2 && strcmp(text, "ar") == 0 && pread(again, text, 5, 0) == 5 &&
       strcmp(text, "child") == 0);
  must(fcntl(plain, F_GETFD) == FD_CLOEXEC && lseek(plain, 0, SEEK_CUR) == 0);
  must(pwrite(sealed, "x", 1, 0) == -1 && errno == EPERM && ftruncate(sealed, 9) == -1);
  must(pread(sealed, text, 5, 0) == 5 && memcmp(text, "fixed", 5) == 0 && lseek(sealed, 0, SEEK_CUR) == 5);
  view[0] = 'B';
  must(pwrite(future, "x", 1, 0) == -1 && pread(future, text, 6, 0) == 6 && memcmp(text, "Before", 6) == 0);
  pass();
}
