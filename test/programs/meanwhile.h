/* What other processes and threads of a behaviour do while its first thread is in ready(): wait at a gate
 * until the harness is done, or be inside a system call. Nothing here sleeps and hopes: that a call is under
 * way is read from /proc. */
#ifndef MEANWHILE_H
#define MEANWHILE_H

#include "behaviour.h"

#include <limits.h>
#include <pthread.h>

/* A gate: whoever calls wait_at_gate() waits until the one process that kept it calls open_gate(). Made
 * before the others are; a process that neither waits nor opens has to call leave_gate(), or end. */
static int gate[2] = {-1, -1};

static inline void make_gate(void) { must(pipe2(gate, O_CLOEXEC) == 0); }

static inline void leave_gate(void) { must(close(gate[1]) == 0); }

static inline void wait_at_gate(void) {
  char byte;
  must(read(gate[0], &byte, 1) == 0);
}

static inline void open_gate(void) { must(close(gate[1]) == 0); }

/* A child that has left the gate's far end to us; it goes on as the caller's child does after fork(2). */
static inline pid_t fork_at_gate(void) {
  pid_t pid = fork();
  must(pid >= 0);
  if (pid == 0) leave_gate();
  return pid;
}

/* Reaps a child that has to have ended with exit code 0; it has said itself what else was wrong. */
static inline void ended_well(pid_t pid) {
  int status = 0;
  must(waitpid(pid, &status, 0) == pid);
  if (status != 0) fail("child %d ended with status %#x", (int)pid, (unsigned)status);
}

/* The first line, or all, of a file. */
static inline size_t read_text(const char* path, char* to, size_t size) {
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  size_t n = 0;
  if (fd < 0) return 0;
  for (ssize_t got; n < size - 1 && (got = read(fd, to + n, size - 1 - n)) > 0;) n += (size_t)got;
  close(fd);
  to[n] = 0;
  return n;
}

/* The state letter of proc_pid_stat(5). */
static inline char state_of(pid_t pid) {
  char path[64], text[512];
  snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
  must(read_text(path, text, sizeof text) > 0);
  return strrchr(text, ')')[2];
}

static inline void await_state(pid_t pid, char state) {
  for (int i = 0; state_of(pid) != state; i++) {
    if (i > 5000) fail("process %d is in state %c, not %c", (int)pid, state_of(pid), state);
    nap_ms(1);
  }
}

/* The number of the system call a thread sleeps in (proc_pid_syscall(5)); -1 if it does not. */
static inline long call_of(pid_t pid, pid_t tid) {
  char path[64], text[256];
  snprintf(path, sizeof path, "/proc/%d/task/%d/syscall", (int)pid, (int)tid);
  return read_text(path, text, sizeof text) > 0 && text[0] >= '0' && text[0] <= '9' ? strtol(text, NULL, 10)
                                                                                    : -1;
}

static inline void await_call_or_end(pid_t pid, pid_t tid, long number, const int* done) {
  for (int i = 0; call_of(pid, tid) != number; i++) {
    /* A call of limited time may be over before we had our turn to look. */
    if (done != NULL ? __atomic_load_n(done, __ATOMIC_SEQ_CST) : i % 100 == 99 && state_of(pid) == 'Z')
      return;
    if (i > 5000) fail("thread %d is in call %ld, not in %ld", (int)tid, call_of(pid, tid), number);
    nap_ms(1);
  }
}

static inline void await_call(pid_t pid, pid_t tid, long number) {
  await_call_or_end(pid, tid, number, NULL);
}

/* How long, in seconds, a thread that only naps was not let run since watch_stalls(): what a machine under load does to
 * everybody, and the freeze itself. */
static double stalled_seconds;

static inline void* note_stalls(void* arg) {
  (void)arg;
  for (;;) {
    struct timespec from, to;
    clock_gettime(CLOCK_MONOTONIC, &from);
    nap_ms(5);
    clock_gettime(CLOCK_MONOTONIC, &to);
    double late = (double)(to.tv_sec - from.tv_sec) + (double)(to.tv_nsec - from.tv_nsec) / 1e9 - 0.005;
    if (late > 0.02) stalled_seconds += late;
  }
  return NULL;
}

static inline void watch_stalls(void) {
  pthread_t thread;
  must(pthread_create(&thread, NULL, note_stalls, NULL) == 0 && pthread_detach(thread) == 0);
}

/* One call, made by a thread or a child, and what came of it. */
struct call {
  long (*make)(void*);
  void* arg;
  long result;
  int error, done;
  pid_t pid, tid;
  pthread_t thread;
  int answer; /* from a child */
};

static inline void* call_thread(void* arg) {
  struct call* c = arg;
  __atomic_store_n(&c->tid, gettid(), __ATOMIC_SEQ_CST);
  errno = 0;
  c->result = c->make(c->arg);
  c->error = errno;
  __atomic_store_n(&c->done, 1, __ATOMIC_SEQ_CST);
  return NULL;
}

/* Returns when a new thread waits inside `make`, in system call `number`. */
static inline void call_in_thread(struct call* c, long number, long (*make)(void*), void* arg) {
  memset(c, 0, sizeof *c);
  c->make = make;
  c->arg = arg;
  c->answer = -1;
  c->pid = getpid();
  must(pthread_create(&c->thread, NULL, call_thread, c) == 0);
  while (__atomic_load_n(&c->tid, __ATOMIC_SEQ_CST) == 0) nap_ms(1);
  await_call_or_end(c->pid, c->tid, number, &c->done);
}

/* The same in a child of one thread. */
static inline void call_in_child(struct call* c, long number, long (*make)(void*), void* arg) {
  int p[2];
  must(pipe2(p, O_CLOEXEC) == 0);
  memset(c, 0, sizeof *c);
  c->pid = c->tid = fork();
  must(c->pid >= 0);
  if (c->pid == 0) {
    errno = 0;
    c->result = make(arg);
    c->error = errno;
    must(write(p[1], c, sizeof *c) == sizeof *c);
    _exit(0);
  }
  must(close(p[1]) == 0);
  c->answer = p[0];
  await_call(c->pid, c->tid, number);
}

/* Fails if the call has come back by itself: it was interrupted, or its time was lost. */
static inline void still_inside(struct call* c) {
  nap_ms(20);
  if (c->answer >= 0) {
    int flags = fcntl(c->answer, F_GETFL);
    must(fcntl(c->answer, F_SETFL, flags | O_NONBLOCK) == 0);
    if (read(c->answer, c, sizeof *c) == (ssize_t)sizeof *c) c->done = 1;
    must(c->done || fcntl(c->answer, F_SETFL, flags) == 0);
  }
  if (__atomic_load_n(&c->done, __ATOMIC_SEQ_CST))
    fail("the call came back with %ld (errno %d, %s)", c->result, c->error, strerror(c->error));
}

/* Waits for the call's end and gives its result; errno as it was there. */
static inline long end_of_call(struct call* c) {
  if (c->answer < 0) {
    must(pthread_join(c->thread, NULL) == 0);
  } else {
    int answer = c->answer;
    pid_t pid = c->pid;
    if (read(answer, c, sizeof *c) != (ssize_t)sizeof *c)
      fail("the child in the call has ended without an answer");
    must(close(answer) == 0);
    ended_well(pid);
  }
  errno = c->error;
  return c->result;
}

/* Seconds on a clock. */
static inline double seconds(clockid_t clock) {
  struct timespec t;
  must(clock_gettime(clock, &t) == 0);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

#endif
