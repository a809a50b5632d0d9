/* pty(7): a terminal made inside the pod: number, settings, size, flags, and what was typed and not read yet.
 */
#include "behaviour.h"

#include <sys/ioctl.h>
#include <termios.h>

int main(void) {
  int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC), number;
  must(master >= 0 && grantpt(master) == 0 && unlockpt(master) == 0 && ioctl(master, TIOCGPTN, &number) == 0);
  char path[64], text[64] = {0};
  snprintf(path, sizeof path, "/dev/pts/%d", number);
  int slave = open(path, O_RDWR | O_NOCTTY);
  struct termios t, now;
  struct winsize size = {33, 111, 5, 6}, got;
  must(slave >= 0 && tcgetattr(slave, &t) == 0);
  t.c_lflag &= ~(tcflag_t)(ICANON | ECHO | ISIG);
  t.c_oflag &= ~(tcflag_t)OPOST;
  t.c_cc[VMIN] = 3, t.c_cc[VINTR] = 7;
  must(cfsetspeed(&t, B9600) == 0 && tcsetattr(slave, TCSANOW, &t) == 0 &&
       ioctl(master, TIOCSWINSZ, &size) == 0);
  must(tcgetattr(slave, &t) == 0 && write(master, "typed\r\n", 7) == 7);
  int waiting = 0;
  for (int i = 0; i < 20000 && (ioctl(slave, FIONREAD, &waiting), waiting < 7); i++) nap_ms(1);
  must(fcntl(master, F_SETFL, O_NONBLOCK) == 0);
  ready();
  int again = -1;
  must(ioctl(master, TIOCGPTN, &again) == 0 && again == number && strcmp(ttyname(slave), path) == 0);
  must(tcgetattr(slave, &now) == 0 && now.c_lflag == t.c_lflag && now.c_iflag == t.c_iflag &&
       now.c_oflag == t.c_oflag);
  must(now.c_cflag == t.c_cflag && memcmp(now.c_cc, t.c_cc, sizeof t.c_cc) == 0 &&
       cfgetospeed(&now) == B9600);
  must(ioctl(slave, TIOCGWINSZ, &got) == 0 && memcmp(&got, &size, sizeof size) == 0);
  must((fcntl(master, F_GETFL) & O_NONBLOCK) != 0 && (fcntl(slave, F_GETFL) & O_NONBLOCK) == 0 &&
       fcntl(master, F_GETFD) == FD_CLOEXEC);
  must(read(slave, text, sizeof text) == 7 && memcmp(text, "typed\n\n", 7) == 0);
  must(write(slave, "out", 3) == 3);
  ssize_t n = -1;
  for (int i = 0; i < 20000 && (n = read(master, text, sizeof text)) <= 0; i++) nap_ms(1);
  must(n == 3 && memcmp(text, "out", 3) == 0 && read(master, text, 1) == -1 && errno == EAGAIN);
  must(close(slave) == 0 && fcntl(master, F_SETFL, 0) == 0 && read(master, text, 1) == -1 && errno == EIO);
  pass();
}
