/* pty(7): what a program has written to its terminal and the terminal's keeper has not read yet.
 * todo: refused by name (ERR_TERMINAL_UNREAD): it could be read and put back */
#include "behaviour.h"

int main(void) {
  int master = posix_openpt(O_RDWR | O_NOCTTY);
  must(master >= 0 && grantpt(master) == 0 && unlockpt(master) == 0);
  int slave = open(ptsname(master), O_RDWR | O_NOCTTY);
  must(slave >= 0 && write(slave, "unread", 6) == 6);
  nap_ms(10);
  ready();
  char text[16];
  must(read(master, text, 16) == 6 && memcmp(text, "unread", 6) == 0);
  pass();
}
