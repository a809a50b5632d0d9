/* open(2), dup(2): descriptors that were dup'ed share one offset and one set of flags, also at high numbers;
 * a file that was opened twice has two of each. */
#include "behaviour.h"

int main(void) {
  int a = open(scratch("file"), O_RDWR | O_CREAT, 0600);
  must(a >= 0 && write(a, "0123456789", 10) == 10 && lseek(a, 2, SEEK_SET) == 2);
  int b = dup(a), high = fcntl(a, F_DUPFD_CLOEXEC, 900), other = open(scratch("file"), O_RDWR);
  must(b >= 0 && high == 900 && other >= 0 && lseek(other, 7, SEEK_SET) == 7);
  ready();
  char c = 0;
  must(read(b, &c, 1) == 1 && c == '2');
  must(read(high, &c, 1) == 1 && c == '3');
  must(read(other, &c, 1) == 1 && c == '7');
  must(read(a, &c, 1) == 1 && c == '4');
  must(fcntl(high, F_SETFL, O_APPEND) == 0);
  must((fcntl(a, F_GETFL) & O_APPEND) != 0 && (fcntl(other, F_GETFL) & O_APPEND) == 0);
  must(fcntl(high, F_GETFD) == FD_CLOEXEC && fcntl(b, F_GETFD) == 0);
  must(syscall(SYS_kcmp, getpid(), getpid(), 0 /* KCMP_FILE */, a, high) == 0);
  must(syscall(SYS_kcmp, getpid(), getpid(), 0, a, other) != 0);
  pass();
}
