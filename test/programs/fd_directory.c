/* readdir(3): a directory that was read half goes on where it was, one that was read to its end stays there,
 * and both can be rewound. */
#include "behaviour.h"

#include <dirent.h>
#include <stdint.h>

enum { files = 400, half = 150 };

int main(void) {
  char seen[files] = {0}, name[32];
  must(mkdir(scratch("many"), 0700) == 0);
  for (int i = 0; i < files; i++) {
    snprintf(name, sizeof name, "many/file-%d", i);
    int fd = open(scratch(name), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    must(fd >= 0 && close(fd) == 0);
  }
  int part = open(scratch("many"), O_RDONLY | O_DIRECTORY),
      whole = dup(open(scratch("many"), O_RDONLY | O_DIRECTORY));
  must(part >= 0 && whole >= 0);
  int count = 0;
  /* raw, so that nothing waits in a buffer of the library */
  struct entry {
    uint64_t ino, off;
    unsigned short size;
    unsigned char type;
    char name[];
  } * e;
  char buffer[4096] __attribute__((aligned(8)));
  long n = syscall(SYS_getdents64, part, buffer, sizeof buffer);
  for (long at = 0; at < n; at += e->size) {
    e = (struct entry*)(buffer + at);
    int i;
    if (sscanf(e->name, "file-%d", &i) == 1) seen[i]++, count++;
  }
  must(count > 20 && count < files);
  while (syscall(SYS_getdents64, whole, buffer, sizeof buffer) > 0) {
  }
  off_t at_end = lseek(whole, 0, SEEK_CUR), at_part = lseek(part, 0, SEEK_CUR);
  ready();
  must(lseek(whole, 0, SEEK_CUR) == at_end && lseek(part, 0, SEEK_CUR) == at_part);
  must(syscall(SYS_getdents64, whole, buffer, sizeof buffer) == 0);
  DIR* d = fdopendir(part);
  must(d != NULL);
  for (struct dirent* x; (x = readdir(d)) != NULL;) {
    int i;
    if (sscanf(x->d_name, "file-%d", &i) == 1) seen[i]++;
  }
  for (int i = 0; i < files; i++)
    if (seen[i] != 1) fail("file %d was seen %d times", i, seen[i]);
  must(lseek(whole, 0, SEEK_SET) == 0 && syscall(SYS_getdents64, whole, buffer, sizeof buffer) > 0);
  must(openat(whole, "file-7", O_RDONLY) >= 0);
  pass();
}
