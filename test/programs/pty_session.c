/* tty(4): a session on a terminal made inside the pod: controlling terminal, foreground and background
 * groups, /dev/tty, signals by keys, a reader that waits, and SIGTTIN for those in the background. */
#include "meanwhile.h"

#include <sys/ioctl.h>
#include <termios.h>

static int slave;
static volatile sig_atomic_t interrupted;
static void on_interrupt(int s) { (void)s, interrupted++; }

static long line(void* arg) {
  (void)arg;
  char text[32];
  return read(slave, text, sizeof text);
}

/* The session's leader, in the foreground; its child is in the background. */
static void session(int said) {
  struct sigaction a = {.sa_handler = on_interrupt, .sa_flags = SA_RESTART};
  must(setsid() > 0 && ioctl(slave, TIOCSCTTY, 0) == 0 && sigaction(SIGINT, &a, NULL) == 0);
  leave_gate();
  int tty = open("/dev/tty", O_RDWR | O_CLOEXEC);
  pid_t back = fork();
  must(tty >= 0 && back >= 0);
  if (back == 0) {
    must(setpgid(0, 0) == 0 && signal(SIGTTIN, SIG_IGN) != SIG_ERR);
    wait_at_gate();
    must(tcgetpgrp(slave) == getppid() && read(slave, &tty, 1) == -1 && errno == EIO);
    must(getsid(0) == getppid() && getpgrp() == getpid());
    _exit(0);
  }
  while (getpgid(back) != back) nap_ms(1);
  struct call reading;
  call_in_thread(&reading, SYS_read, line, NULL);
  must(write(said, "s", 1) == 1);
  wait_at_gate();
  must(end_of_call(&reading) == 5 && interrupted == 1);
  must(tcgetpgrp(tty) == getpgrp() && tcgetsid(slave) == getpid() && getsid(0) == getpid());
  int again = open("/dev/tty", O_RDWR);
  must(again >= 0 && tcgetsid(again) == getpid());
  ended_well(back);
  must(tcsetpgrp(slave, getpgrp()) == 0);
  _exit(0);
}

int main(void) {
  int master = posix_openpt(O_RDWR | O_NOCTTY), said[2];
  char byte;
  must(master >= 0 && grantpt(master) == 0 && unlockpt(master) == 0 && pipe(said) == 0);
  must((slave = open(ptsname(master), O_RDWR | O_NOCTTY)) >= 0);
  struct termios t;
  must(tcgetattr(slave, &t) == 0);
  t.c_lflag &= ~(tcflag_t)ECHO;
  must(tcsetattr(slave, TCSANOW, &t) == 0);
  make_gate();
  pid_t leader = fork();
  if (leader == 0) session(said[1]);
  must(read(said[0], &byte, 1) == 1);
  ready();
  pid_t group = 0;
  must(ioctl(master, TIOCGPGRP, &group) == 0 && group == leader);
  must(write(master, "\003", 1) == 1);
  must(write(master, "line\n", 5) == 5);
  open_gate();
  ended_well(leader);
  pass();
}
