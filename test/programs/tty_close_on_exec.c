/* ioctl_tty(2), TIOCGPTPEER: with O_CLOEXEC the file keeps the flag, and fdinfo says it of descriptors
 * without it. */
#include "behaviour.h"

#include <sys/ioctl.h>

#ifndef TIOCGPTPEER
#define TIOCGPTPEER _IO('T', 0x41)
#endif

int main(void) {
  int unlock = 0, master = open("/dev/ptmx", O_RDWR | O_NOCTTY);
  must(master >= 0 && ioctl(master, TIOCSPTLCK, &unlock) == 0);
  int slave = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC), plain = dup(slave);
  must(slave >= 0 && plain >= 0);
  ready();
  must(fcntl(slave, F_GETFD) == FD_CLOEXEC);
  must(fcntl(plain, F_GETFD) == 0);
  pass();
}
