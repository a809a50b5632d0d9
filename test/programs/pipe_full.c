/* pipe(7): a pipe that is full to the last byte, one of many small writes that fill its slots and one half
 * read; the writer that waits for room writes when there is some. */
#include "meanwhile.h"

static long add(void* arg) { return write(*(int*)arg, "last", 4); }

int main(void) {
  int full[2], slots[2], half[2];
  char *much = malloc(1 << 20), *back = malloc(1 << 20);
  must(pipe(full) == 0 && pipe(slots) == 0 && pipe(half) == 0);
  for (int i = 0; i < 1 << 20; i++) much[i] = (char)(i * 31 >> 3);
  must(fcntl(half[0], F_SETPIPE_SZ, 1 << 20) == 1 << 20);
  must(write(full[1], much, 65536) == 65536);
  must(write(half[1], much, 1 << 20) == 1 << 20 && read(half[0], back, 300001) == 300001);
  int count = 0;
  must(fcntl(slots[1], F_SETFL, O_NONBLOCK) == 0);
  /* a splice of one byte takes a slot of its own, as small writes do not */
  int file = open(scratch("bytes"), O_RDWR | O_CREAT, 0600);
  must(write(file, much, 4096) == 4096);
  for (loff_t at = 0; count < 64 && splice(file, &at, slots[1], NULL, 1, SPLICE_F_NONBLOCK) == 1; count++) {
  }
  must(count == 16);
  struct call blocked;
  call_in_thread(&blocked, SYS_write, add, &full[1]);
  ready();
  still_inside(&blocked);
  for (size_t n = 0; n < 65536;) {
    ssize_t got = read(full[0], back + n, 65536 - n);
    must(got > 0);
    n += (size_t)got;
  }
  must(memcmp(back, much, 65536) == 0 && end_of_call(&blocked) == 4 && read(full[0], back, 10) == 4);
  must(read(slots[0], back, 100) == 16 && memcmp(back, much, 16) == 0);
  size_t n = 0;
  must(close(half[1]) == 0);
  for (ssize_t got; (got = read(half[0], back + n, 1 << 20)) > 0;) n += (size_t)got;
  must(n == (1 << 20) - 300001 && memcmp(back, much + 300001, n) == 0);
  pass();
}
