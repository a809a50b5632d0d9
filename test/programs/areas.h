/* A process's own memory as /proc/self/smaps and mincore(2) tell it, and patterns to fill it with. */
#ifndef AREAS_H
#define AREAS_H

#include "behaviour.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/mman.h>

#define PAGE 4096UL

struct area {
  unsigned long start, end, offset;
  char mode[5], path[256], flags[200];
  long rss_kib, locked_kib, huge_kib;
};

/* The mapping `address` lies in; false if there is none. */
static inline bool find_area(const void* address, struct area* found) {
  FILE* f = fopen("/proc/self/smaps", "r");
  must(f != NULL);
  char line[1024];
  bool here = false;
  while (fgets(line, sizeof line, f) != NULL) {
    struct area a;
    memset(&a, 0, sizeof a);
    if (line[0] < 'A' || line[0] > 'Z') {
      if (here) break;
      must(sscanf(line, "%lx-%lx %4s %lx %*s %*s %255[^\n]", &a.start, &a.end, a.mode, &a.offset, a.path) >=
           4);
      here = a.start <= (uintptr_t)address && (uintptr_t)address < a.end;
      if (here) *found = a;
    } else if (here) {
      sscanf(line, "Rss: %ld", &found->rss_kib);
      sscanf(line, "Locked: %ld", &found->locked_kib);
      sscanf(line, "AnonHugePages: %ld", &found->huge_kib);
      if (strncmp(line, "VmFlags:", 8) == 0) snprintf(found->flags, sizeof found->flags, "%.190s", line + 8);
    }
  }
  fclose(f);
  return here;
}

/* True if VmFlags of the mapping at `address` hold the two letters. */
static inline bool has_flag(const void* address, const char* flag) {
  struct area a;
  if (!find_area(address, &a)) fail("nothing is mapped at %p", address);
  char word[8];
  snprintf(word, sizeof word, " %s", flag);
  return strstr(a.flags, word) != NULL;
}

/* How many pages of a range are there, without touching any. */
static inline size_t populated(const void* from, size_t pages) {
  size_t n = 0;
  unsigned char vector[4096];
  for (size_t at = 0; at < pages; at += sizeof vector) {
    size_t here = pages - at < sizeof vector ? pages - at : sizeof vector;
    must(mincore((char*)(uintptr_t)from + at * PAGE, here * PAGE, vector) == 0);
    for (size_t i = 0; i < here; i++) n += vector[i] & 1;
  }
  return n;
}

static inline void* map_anonymous(size_t size, int flags) {
  void* p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_ANONYMOUS | flags, -1, 0);
  must(p != MAP_FAILED);
  return p;
}

/* Eight bytes that belong at this place of this page and nowhere else. */
static inline uint64_t pattern(uint64_t seed, uint64_t index) {
  uint64_t x = (seed << 32 ^ index) * 0x9E3779B97F4A7C15u + seed;
  return (x ^ x >> 29) | 1;
}

static inline void fill_pattern(void* at, size_t size, uint64_t seed) {
  uint64_t* w = at;
  for (size_t i = 0; i < size / 8; i++) w[i] = pattern(seed, i);
}

/* The first byte that is not as fill_pattern left it, or `size`. */
static inline size_t check_pattern(const void* at, size_t size, uint64_t seed) {
  const uint64_t* w = at;
  for (size_t i = 0; i < size / 8; i++)
    if (w[i] != pattern(seed, i)) return i * 8;
  return size;
}

static inline bool all_zero(const void* at, size_t size) {
  const uint64_t* w = at;
  for (size_t i = 0; i < size / 8; i++)
    if (w[i] != 0) return false;
  return true;
}

/* A file in the test's directory, open for reading and writing, with a pattern in it. */
static inline int pattern_file(const char* name, size_t size, uint64_t seed) {
  int fd = open(scratch(name), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  must(fd >= 0);
  char* bytes = malloc(size);
  must(bytes != NULL);
  fill_pattern(bytes, size, seed);
  must(write(fd, bytes, size) == (ssize_t)size);
  free(bytes);
  return fd;
}

#endif
