/* A ring buffer's trick: one memory mapped twice in a row, so that what runs over the end goes on at the
 * start. */
#include "areas.h"

int main(void) {
  const size_t size = 16 * PAGE;
  int fd = memfd_create("ring", MFD_CLOEXEC);
  must(fd >= 0 && ftruncate(fd, (off_t)size) == 0);
  char* p = map_anonymous(2 * size, MAP_PRIVATE);
  must(mmap(p, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) == p);
  must(mmap(p + size, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) == p + size);
  must(close(fd) == 0);
  memcpy(p + size - 4, "wrapped", 7);
  ready();
  must(memcmp(p, "ped", 3) == 0 && memcmp(p + size - 4, "wrapped", 7) == 0);
  memcpy(p + size - 2, "again!", 6);
  must(memcmp(p, "ain!", 4) == 0 && memcmp(p + size, "ain!", 4) == 0);
  pass();
}
