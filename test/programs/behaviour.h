/* A behaviour is a small program that checks one thing the kernel promises. It sets something up, calls
 * ready(), which returns when the harness has done to the process what it wanted (detached and reattached it,
 * once or thrice, or only looked at it), and then checks that what it had set up is still so. pass() or
 * fail() ends it.
 *
 * ready() waits by looking for a file now and then; a program whose point is to be inside a call meanwhile
 * makes that call in a thread or child of its own. */
#ifndef BEHAVIOUR_H
#define BEHAVIOUR_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static inline void behaviour_say(const char* text) {
  size_t left = strlen(text);
  while (left > 0) {
    ssize_t n = write(1, text, left);
    if (n > 0)
      text += n, left -= (size_t)n;
    else if (errno != EINTR)
      _exit(3);
  }
}

__attribute__((noreturn)) static inline void pass(void) {
  behaviour_say("PASS\n");
  _exit(0);
}

__attribute__((noreturn, format(printf, 1, 2))) static inline void fail(const char* format, ...) {
  char text[1024];
  va_list args;
  va_start(args, format);
  int n = snprintf(text, sizeof text, "FAIL (pid %d): ", (int)getpid());
  vsnprintf(text + n, sizeof text - (size_t)n - 2, format, args);
  va_end(args);
  strcat(text, "\n");
  behaviour_say(text);
  _exit(1);
}

/* Fails, naming the condition, the place and errno, unless the condition holds. */
#define must(condition)                                                                         \
  do {                                                                                          \
    if (!(condition))                                                                           \
      fail("%s:%d: %s (errno %d, %s)", __FILE__, __LINE__, #condition, errno, strerror(errno)); \
  } while (0)

static inline void nap_ms(long ms) {
  struct timespec t = {ms / 1000, ms % 1000 * 1000000};
  while (nanosleep(&t, &t) != 0 && errno == EINTR) {
  }
}

/* Says that everything is set up and waits for the harness. */
static inline void ready(void) {
  const char* go = getenv("BEHAVIOUR_GO");
  if (go == NULL) fail("BEHAVIOUR_GO is not set");
  behaviour_say("READY\n");
  while (access(go, F_OK) != 0) nap_ms(5);
}

/* A directory of the test's own, as a path for files. */
static inline const char* scratch(const char* name) {
  static char path[8][512];
  static unsigned next;
  char* p = path[next++ % 8];
  const char* dir = getenv("BEHAVIOUR_DIR");
  snprintf(p, sizeof path[0], "%s/%s", dir != NULL ? dir : "/tmp", name);
  return p;
}

#endif
