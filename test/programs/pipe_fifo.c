/* fifo(7): named pipes with content, open at both ends, at one, and read-write; end of file and EPIPE come
 * when the other side is gone. */
#include "behaviour.h"

static int end(const char* name, int flags) {
  int fd = open(scratch(name), flags | O_NONBLOCK);
  must(fd >= 0);
  return fd;
}

int main(void) {
  must(mkfifo(scratch("both"), 0600) == 0 && mkfifo(scratch("one"), 0600) == 0 &&
       mkfifo(scratch("rw"), 0600) == 0);
  int r = end("both", O_RDONLY), w = end("both", O_WRONLY), alone = end("one", O_RDONLY),
      rw = end("rw", O_RDWR);
  must(write(w, "waiting", 7) == 7 && write(rw, "own", 3) == 3);
  must(fcntl(w, F_SETFL, 0) == 0 && fcntl(r, F_SETPIPE_SZ, 8192) == 8192);
  ready();
  char text[16] = {0};
  must(fcntl(w, F_GETFL) == (O_WRONLY | 0100000) ||
       (fcntl(w, F_GETFL) & (O_NONBLOCK | O_ACCMODE)) == O_WRONLY);
  must((fcntl(r, F_GETFL) & O_NONBLOCK) != 0 && fcntl(w, F_GETPIPE_SZ) == 8192);
  must(read(r, text, 16) == 7 && memcmp(text, "waiting", 7) == 0);
  must(read(r, text, 16) == -1 && errno == EAGAIN);
  must(read(rw, text, 16) == 3 && read(rw, text, 16) == -1 && errno == EAGAIN);
  must(read(alone, text, 16) == 0);
  int late = end("one", O_WRONLY), second = end("both", O_WRONLY);
  must(write(late, "late", 4) == 4 && read(alone, text, 16) == 4);
  must(close(w) == 0 && read(r, text, 1) == -1 && close(second) == 0 && read(r, text, 1) == 0);
  must(close(alone) == 0 && signal(SIGPIPE, SIG_IGN) != SIG_ERR && write(late, "x", 1) == -1 &&
       errno == EPIPE);
  pass();
}
