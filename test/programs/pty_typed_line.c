/* termios(3): the beginning of a line that was typed but not ended can be finished, and corrected,
 * afterwards; lines typed ahead are lines still. */
#include "behaviour.h"

#include <sys/ioctl.h>
#include <termios.h>

int main(void) {
  int master = posix_openpt(O_RDWR | O_NOCTTY);
  must(master >= 0 && grantpt(master) == 0 && unlockpt(master) == 0);
  int slave = open(ptsname(master), O_RDWR | O_NOCTTY);
  struct termios t;
  must(slave >= 0 && tcgetattr(slave, &t) == 0);
  t.c_lflag &= ~(tcflag_t)ECHO;
  must(tcsetattr(slave, TCSANOW, &t) == 0 && write(master, "one\ntwo\nbegin", 13) == 13);
  nap_ms(10);
  ready();
  char text[32] = {0};
  must(write(master, "\177+\n", 3) == 3);
  must(read(slave, text, sizeof text) == 4 && memcmp(text, "one\n", 4) == 0);
  must(read(slave, text, sizeof text) == 4 && memcmp(text, "two\n", 4) == 0);
  ssize_t n = read(slave, text, sizeof text);
  if (n != 6 || memcmp(text, "begi+\n", 6) != 0) fail("the line is '%.*s'", (int)n, text);
  pass();
}
