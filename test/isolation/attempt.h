/* What the programs here say of each attempt to get round an isolation: "held NAME" or "BROKEN NAME". An attempt that
 * succeeds does as little as shows it: others' things are opened, not written. */
#ifndef ATTEMPT_H
#define ATTEMPT_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static inline void attempt(const char* name, int through) {
  dprintf(1, "%s %s%s%s\n", through ? "BROKEN" : "held", name, through ? "" : ": ", through ? "" : strerror(errno));
}

/* A call that must fail. */
#define must_fail(name, call)                 \
  do {                                        \
    errno = 0;                                \
    attempt(name, (long)(call) >= 0);         \
  } while (0)

/* A descriptor that must not be had. */
#define must_not_open(name, call)             \
  do {                                        \
    errno = 0;                                \
    int fd_ = (int)(call);                    \
    attempt(name, fd_ >= 0);                  \
    if (fd_ >= 0) close(fd_);                 \
  } while (0)

static inline char* in(const char* directory, const char* name) {
  char* path;
  if (asprintf(&path, "%s/%s", directory, name) < 0) _exit(3);
  return path;
}

#endif
