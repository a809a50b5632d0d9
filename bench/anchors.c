/* What the kernel itself takes for the work a detach and a reattach cannot do without, measured in the same run.
 *
 *   anchors copy PID FILE   read all private writable memory of PID and write it to a new FILE, in a plain loop
 *   anchors load FILE       read FILE into fresh memory with huge pages
 *   anchors spin N          a CPU loop; prints nothing
 *
 * Each prints its own milliseconds and bytes. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static double now_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static void die(const char *what) {
  perror(what);
  exit(1);
}

static void copy(pid_t pid, const char *file) {
  enum { kChunk = 1 << 20 };
  char maps[64], line[512];
  static char buffer[kChunk];
  memset(buffer, 1, sizeof buffer);
  snprintf(maps, sizeof maps, "/proc/%d/maps", (int)pid);
  FILE *list = fopen(maps, "r");
  if (list == NULL) die(maps);
  double start = now_ms();
  size_t total = 0;
  int fd = open(file, O_WRONLY | O_CREAT | O_EXCL, 0600);
  if (fd < 0) die(file);
  while (fgets(line, sizeof line, list) != NULL) {
    uintptr_t from, to;
    char mode[5];
    if (sscanf(line, "%lx-%lx %4s", &from, &to, mode) != 3 || strcmp(mode, "rw-p") != 0) continue;
    while (from < to) {
      size_t size = to - from < kChunk ? to - from : kChunk;
      struct iovec local = {buffer, size}, remote = {(void *)from, size};
      ssize_t n = process_vm_readv(pid, &local, 1, &remote, 1, 0);
      if (n <= 0) break;
      if (write(fd, buffer, (size_t)n) != n) die("write");
      total += (size_t)n;
      from += (size_t)n;
    }
  }
  close(fd);
  printf("%.3f %zu\n", now_ms() - start, total);
}

static void load(const char *file) {
  enum { kHuge = 2 << 20, kChunk = 4 << 20 };
  int fd = open(file, O_RDONLY);
  if (fd < 0) die(file);
  off_t size = lseek(fd, 0, SEEK_END);
  double start = now_ms();
  char *memory = mmap(NULL, (size_t)size + kHuge, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) die("mmap");
  memory = (char *)(((uintptr_t)memory + kHuge - 1) & ~((uintptr_t)kHuge - 1));
  madvise(memory, (size_t)size, MADV_HUGEPAGE);
  for (off_t at = 0; at < size;) {
    ssize_t n = pread(fd, memory + at, (size_t)(size - at < kChunk ? size - at : kChunk), at);
    if (n <= 0) die("pread");
    at += n;
  }
  printf("%.3f %zu\n", now_ms() - start, (size_t)size);
}

static void spin(long rounds) {
  double start = now_ms();
  volatile uint64_t x = 1;
  for (long i = 0; i < rounds; i++) x = x * 6364136223846793005u + 1442695040888963407u;
  printf("%.3f 0\n", now_ms() - start);
}

int main(int argc, char **argv) {
  if (argc == 4 && strcmp(argv[1], "copy") == 0) copy((pid_t)atoi(argv[2]), argv[3]);
  else if (argc == 3 && strcmp(argv[1], "load") == 0) load(argv[2]);
  else if (argc == 3 && strcmp(argv[1], "spin") == 0) spin(atol(argv[2]));
  else return 2;
  return 0;
}
