/* pthreads(7): 200 threads at a barrier, each with its stack, its thread-local variables and its errno; then
 * they meet again, and are joined. */
#include "meanwhile.h"

enum { threads = 200 };
static pthread_barrier_t before, after;
static __thread int own = -1;
static pthread_key_t key;
static int ended;
static void last(void* value) { __atomic_add_fetch(&ended, (long)value >= 1000 ? 1 : 0, __ATOMIC_SEQ_CST); }

static void* run(void* arg) {
  long i = (long)arg;
  volatile char stack[3000];
  own = (int)i;
  memset((char*)stack, (int)i, sizeof stack);
  must(pthread_setspecific(key, (void*)(1000 + i)) == 0);
  pid_t tid = gettid();
  errno = (int)i + 1;
  int* where = &errno;
  pthread_barrier_wait(&before);
  pthread_barrier_wait(&after);
  must(&errno == where && own == i && pthread_getspecific(key) == (void*)(1000 + i) && gettid() == tid);
  for (size_t k = 0; k < sizeof stack; k++) must(stack[k] == (char)i);
  return (void*)(i * 3);
}

int main(void) {
  pthread_t t[threads];
  pthread_attr_t small;
  must(pthread_attr_init(&small) == 0 && pthread_attr_setstacksize(&small, 65536) == 0 &&
       pthread_key_create(&key, last) == 0);
  must(pthread_barrier_init(&before, NULL, threads + 1) == 0 &&
       pthread_barrier_init(&after, NULL, threads + 1) == 0);
  for (long i = 0; i < threads; i++) must(pthread_create(&t[i], &small, run, (void*)i) == 0);
  pthread_barrier_wait(&before);
  ready();
  pthread_barrier_wait(&after);
  for (long i = 0; i < threads; i++) {
    void* result = NULL;
    must(pthread_join(t[i], &result) == 0 && (long)result == i * 3);
  }
  must(ended == threads);
  pass();
}
