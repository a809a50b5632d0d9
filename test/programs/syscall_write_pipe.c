/* write(2) to a full pipe: a write of at most PIPE_BUF bytes waits on and is then made whole (pipe(7)). */
#include "meanwhile.h"

static char bytes[PIPE_BUF];

static long put(void* arg) { return write(*(int*)arg, bytes, sizeof bytes); }

int main(void) {
  int p[2];
  must(pipe(p) == 0 && fcntl(p[1], F_SETFL, O_NONBLOCK) == 0);
  size_t filled = 0;
  for (ssize_t n; (n = write(p[1], bytes, sizeof bytes)) > 0;) filled += (size_t)n;
  must(errno == EAGAIN && filled > 0 && fcntl(p[1], F_SETFL, 0) == 0);
  memset(bytes, 'b', sizeof bytes);
  struct call c;
  call_in_thread(&c, SYS_write, put, &p[1]);
  ready();
  still_inside(&c);
  static char in[PIPE_BUF];
  for (size_t got = 0; got < filled;) {
    ssize_t n = read(p[0], in, sizeof in);
    must(n > 0 && memchr(in, 'b', (size_t)n) == NULL);
    got += (size_t)n;
  }
  must(end_of_call(&c) == sizeof bytes);
  must(read(p[0], in, sizeof in) == sizeof in && memcmp(in, bytes, sizeof in) == 0);
  pass();
}
