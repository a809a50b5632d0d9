/* A program with threads, children and shared memory that checks itself without end: each lap every member of the crew
 * (two threads, two children) is told the lap's number over a pipe, checks all of its own memory against the lap before,
 * writes this lap's, and says so; then the first thread prints "lap N". Anything that is not as it was left prints
 * "WRONG" and ends everything. */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CREW 4
#define WORDS (256 * 512) /* 1 MiB each */

struct member {
  int number, ask[2], answer[2];
  uint64_t *memory;
  pid_t parent;
};

static pid_t first;
static uint64_t *shared; /* laps done by each member */

__attribute__((noreturn)) static void wrong(const char *what, long a, long b) {
  char text[200];
  int n = snprintf(text, sizeof text, "WRONG: %s: %ld, %ld (pid %d, errno %d)\n", what, a, b, (int)getpid(), errno);
  if (write(1, text, (size_t)n) < 0) kill(first, SIGABRT);
  kill(first, SIGKILL);
  _exit(1);
}

static void tell(int fd, uint64_t lap) {
  if (write(fd, &lap, sizeof lap) != sizeof lap) wrong("a write failed", fd, (long)lap);
}

static uint64_t told(int fd) {
  uint64_t lap = 0;
  if (read(fd, &lap, sizeof lap) != sizeof lap) wrong("a read failed", fd, (long)lap);
  return lap;
}

static uint64_t word(int number, uint64_t lap, size_t i) { return (lap * 31 + (uint64_t)number) * 0x9e3779b97f4a7c15 + i / 512; }

static void *work(void *arg) {
  struct member *m = arg;
  const double half = 0.5 * m->number;
  double in_register = half;
  for (uint64_t lap = 1;; lap++) {
    uint64_t now = told(m->ask[0]);
    if (now != lap) wrong("the lap", (long)now, (long)lap);
    /* A part of the memory each lap, all of it in 16. */
    for (size_t i = lap % 16 * (WORDS / 16); i < (lap % 16 + 1) * (WORDS / 16); i++) {
      uint64_t expected = lap > 16 ? word(m->number, lap - 16, i) : 0;
      if (m->memory[i] != expected) wrong("memory", (long)i, (long)(m->memory[i] ^ expected));
      m->memory[i] = word(m->number, lap, i);
    }
    in_register += 1;
    if (in_register != half + (double)lap) wrong("a vector register", (long)in_register, (long)lap);
    if (shared[m->number] != lap - 1) wrong("shared memory", (long)shared[m->number], (long)lap);
    if (getppid() != m->parent) wrong("the parent", getppid(), m->parent);
    shared[m->number] = lap;
    tell(m->answer[1], lap);
  }
  return NULL;
}

int main(void) {
  static struct member crew[CREW];
  pid_t children[CREW] = {0};
  first = getpid();
  shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  for (int i = 0; i < CREW; i++) {
    struct member *m = &crew[i];
    m->number = i;
    m->memory = calloc(WORDS, sizeof *m->memory);
    if (m->memory == NULL || pipe(m->ask) != 0 || pipe(m->answer) != 0) wrong("setting up", i, 0);
    m->parent = getppid();
    if (i % 2 != 0) {
      pthread_t thread;
      if (pthread_create(&thread, NULL, work, m) != 0) wrong("a thread", i, 0);
      continue;
    }
    m->parent = first;
    children[i] = fork();
    if (children[i] < 0) wrong("a child", i, 0);
    if (children[i] == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      work(m);
    }
  }
  for (uint64_t lap = 1;; lap++) {
    for (int i = 0; i < CREW; i++) tell(crew[i].ask[1], lap);
    for (int i = 0; i < CREW; i++)
      if (told(crew[i].answer[0]) != lap || shared[i] != lap) wrong("an answer", i, (long)lap);
    if (waitpid(-1, NULL, WNOHANG) != 0) wrong("a child has ended", 0, 0);
    char text[40];
    int n = snprintf(text, sizeof text, "lap %lu\n", (unsigned long)lap);
    if (write(1, text, (size_t)n) != n) wrong("printing", 0, 0);
    struct timespec t = {0, 2000000};
    while (nanosleep(&t, &t) != 0)
      if (errno != EINTR) wrong("sleeping", 0, 0);
  }
}
