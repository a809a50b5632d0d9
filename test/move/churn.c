/* Memory that never stands still and knows what should be in it: anonymous, shared and of files, mapped, unmapped and moved,
 * in two threads and several processes. Every page has a version, and its words follow from it; what is found to differ is
 * said with WRONG and ends the program. `n COUNT` says how far it is; on SIGTERM it compares everything and says PASS. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { kSlots = 24, kMostPages = 96, kPage = 4096, kWords = kPage / 8 };

static volatile sig_atomic_t ending;
static int file_fd;

static void on_term(int signal) {
  (void)signal;
  ending = 1;
}

static void wrong(const char* what, uint64_t a, uint64_t b) {
  printf("WRONG %s %llx %llx in %d\n", what, (unsigned long long)a, (unsigned long long)b, getpid());
  fflush(stdout);
  _exit(3);
}

static void nap(long us) {
  struct timespec t = {0, us * 1000};
  nanosleep(&t, NULL);
}

/* Version 0 is a page of zeros, kOfFile is what the file has. */
enum { kOfFile = 1 };
static uint64_t word_of(uint64_t slot, uint64_t page, uint64_t version, uint64_t w) {
  if (version == 0) return 0;
  if (version == kOfFile) return (page << 16 | w) * 0x9e3779b97f4a7c15u;
  uint64_t x = slot * 0x1000003 + page * 0x10001 + version * 0x9e3779b97f4a7c15u + w;
  x ^= x >> 29;
  return x * 0xbf58476d1ce4e5b9u | 1;
}

struct slot {
  uint64_t* at;
  size_t pages;
  enum { kAnon, kShared, kFile } kind;
  uint64_t version[kMostPages];
};

struct world {
  uint64_t id, random, next, done;
  struct slot slots[kSlots];
};

static uint64_t draw(struct world* w, uint64_t below) {
  w->random = w->random * 6364136223846793005u + 1442695040888963407u;
  return (w->random >> 33) % below;
}

static void fill(struct world* w, int s, size_t page) {
  struct slot* slot = &w->slots[s];
  uint64_t version = w->next++;
  uint64_t* at = slot->at + page * kWords;
  for (int i = 0; i < kWords; i++) at[i] = word_of(w->id * 100 + (uint64_t)s, page, version, (uint64_t)i);
  slot->version[page] = version;
}

static void verify(struct world* w, int s) {
  struct slot* slot = &w->slots[s];
  for (size_t page = 0; page < slot->pages; page++) {
    for (uint64_t i = 0; i < kWords; i++) {
      uint64_t want = word_of(w->id * 100 + (uint64_t)s, page, slot->version[page], i);
      uint64_t got = slot->at[page * kWords + i];
      if (got != want) {
        printf("slot %d kind %d page %zu of %zu word %llu version %llu at %p\n", s, (int)slot->kind, page,
               slot->pages, (unsigned long long)i, (unsigned long long)slot->version[page], (void*)slot->at);
        wrong("page", got, want);
      }
    }
  }
}

static void map(struct world* w, int s, void* where) {
  struct slot* slot = &w->slots[s];
  slot->kind = draw(w, 3);
  if (where == NULL) slot->pages = 1 + draw(w, kMostPages / 2);
  int flags = (slot->kind == kShared ? MAP_SHARED : MAP_PRIVATE) | (slot->kind == kFile ? 0 : MAP_ANONYMOUS) |
              (where != NULL ? MAP_FIXED : 0);
  slot->at =
      mmap(where, slot->pages * kPage, PROT_READ | PROT_WRITE, flags, slot->kind == kFile ? file_fd : -1, 0);
  if (slot->at == MAP_FAILED) wrong("mmap", 0, 0);
  for (size_t p = 0; p < slot->pages; p++) slot->version[p] = slot->kind == kFile ? kOfFile : 0;
}

static void unmap(struct slot* slot) {
  if (munmap(slot->at, slot->pages * kPage) != 0) wrong("munmap", 0, 0);
}

/* Longer or shorter, here or elsewhere. Shared memory keeps its size: what is beyond its end is no memory. */
static void resize(struct world* w, int s) {
  struct slot* slot = &w->slots[s];
  size_t pages = slot->kind == kShared ? slot->pages : 1 + draw(w, kMostPages);
  void* to = NULL;
  int flags = MREMAP_MAYMOVE;
  if (draw(w, 2) == 0) {
    to = mmap(NULL, kMostPages * kPage, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    flags |= MREMAP_FIXED;
  }
  uint64_t* at = mremap(slot->at, slot->pages * kPage, pages * kPage, flags, to);
  if (at == MAP_FAILED) wrong("mremap", 0, 0);
  if (to != NULL && pages < kMostPages) munmap((char*)to + pages * kPage, (kMostPages - pages) * kPage);
  for (size_t p = slot->pages; p < pages; p++) slot->version[p] = slot->kind == kFile ? kOfFile : 0;
  slot->at = at;
  slot->pages = pages;
}

static void forget(struct world* w, int s) {
  struct slot* slot = &w->slots[s];
  if (slot->kind == kShared) return;
  size_t first = draw(w, slot->pages), count = 1 + draw(w, slot->pages - first);
  if (madvise(slot->at + first * kWords, count * kPage, MADV_DONTNEED) != 0) wrong("madvise", 0, 0);
  for (size_t p = first; p < first + count; p++) slot->version[p] = slot->kind == kFile ? kOfFile : 0;
}

/* A child has all of it, changes what is its own, and ends or becomes another program. */
static void child(struct world* w) {
  pid_t pid = fork();
  if (pid < 0) wrong("fork", 0, 0);
  if (pid == 0) {
    for (int s = 0; s < kSlots; s++) verify(w, s);
    for (int s = 0; s < kSlots; s++)
      if (w->slots[s].kind != kShared) fill(w, s, draw(w, w->slots[s].pages));
    for (int s = 0; s < kSlots; s++) verify(w, s);
    if (draw(w, 2) == 0) execl("/proc/self/exe", "churn", "exec", NULL);
    _exit(7);
  }
  int status = 0;
  if (waitpid(pid, &status, 0) != pid || !WIFEXITED(status) || WEXITSTATUS(status) != 7)
    wrong("child", (uint64_t)status, 7);
}

static void step(struct world* w, int may_fork) {
  int s = (int)draw(w, kSlots);
  struct slot* slot = &w->slots[s];
  uint64_t what = draw(w, 100);
  if (what < 60)
    fill(w, s, draw(w, slot->pages));
  else if (what < 80)
    verify(w, s);
  else if (what < 86)
    resize(w, s);
  else if (what < 90)
    forget(w, s);
  else if (what < 94)
    map(w, s, slot->at); /* in place of what is there, in one step: the other thread maps, too */
  else if (what < 98)
    unmap(slot), map(w, s, NULL);
  else if (may_fork)
    child(w);
  w->done++;
  nap(100);
}

static void begin(struct world* w, uint64_t id) {
  memset(w, 0, sizeof *w);
  w->id = id;
  w->random = id * 77 + 5;
  w->next = 2;
  for (int s = 0; s < kSlots; s++) map(w, s, NULL);
}

static void* thread(void* arg) {
  struct world* w = arg;
  while (!ending) step(w, 0);
  for (int s = 0; s < kSlots; s++) verify(w, s);
  return NULL;
}

/* Two processes pass the same pages to and fro: whoever's turn it is compares what the other wrote. */
static void take_turns(_Atomic uint64_t* turn, uint64_t* pages, uint64_t me) {
  while (!atomic_load(turn + 1)) {
    uint64_t n = atomic_load(turn);
    if ((n & 1) != me) {
      nap(300);
      continue;
    }
    for (uint64_t i = 0; i < 8 * kWords; i++) {
      if (pages[i] != word_of(n, 0, n, i) && n > 0) wrong("turn", pages[i], n);
      pages[i] = word_of(n + 1, 0, n + 1, i);
    }
    atomic_store(turn, n + 1);
    if (ending && me == 0) atomic_store(turn + 1, 1);
  }
}

struct turns {
  _Atomic uint64_t* turn;
  uint64_t* pages;
};

static void* turning(void* arg) {
  struct turns* t = arg;
  take_turns(t->turn, t->pages, 0);
  return NULL;
}

int main(int argc, char** argv) {
  static struct world mine, theirs;
  if (argc == 2 && strcmp(argv[1], "exec") == 0) return 7;
  signal(SIGTERM, on_term);
  file_fd = open(argv[1], O_RDONLY);
  if (file_fd < 0) wrong("open", 0, 0);
  struct turns t = {mmap(NULL, kPage, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0),
                    mmap(NULL, 8 * kPage, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0)};
  pid_t other = fork();
  if (other == 0) {
    signal(SIGTERM, SIG_IGN);
    take_turns(t.turn, t.pages, 1);
    _exit(9);
  }
  begin(&mine, 1);
  begin(&theirs, 2);
  pthread_t one, two;
  pthread_create(&one, NULL, thread, &theirs);
  pthread_create(&two, NULL, turning, &t);
  while (!ending) {
    step(&mine, 1);
    if (mine.done % 100 == 0) printf("n %llu\n", (unsigned long long)mine.done), fflush(stdout);
  }
  pthread_join(one, NULL);
  pthread_join(two, NULL);
  for (int s = 0; s < kSlots; s++) verify(&mine, s);
  int status = 0;
  if (waitpid(other, &status, 0) != other || !WIFEXITED(status) || WEXITSTATUS(status) != 9)
    wrong("the other's end", (uint64_t)status, 9);
  printf("PASS\n");
  return 0;
}
