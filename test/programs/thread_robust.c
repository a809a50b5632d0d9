/* get_robust_list(2): a thread and a process that die with a lock afterwards leave it to the next with
 * EOWNERDEAD; a waiter is woken by it. */
#include "meanwhile.h"

#include <sys/mman.h>

static pthread_mutex_t *shared, local;

static void* die(void* unused) {
  (void)unused;
  must(pthread_mutex_lock(&local) == 0);
  wait_at_gate();
  return NULL;
}

static long take(void* arg) { return pthread_mutex_lock(arg); }

int main(void) {
  pthread_mutexattr_t a;
  pthread_t t;
  shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  must(shared != MAP_FAILED && pthread_mutexattr_init(&a) == 0 &&
       pthread_mutexattr_setrobust(&a, PTHREAD_MUTEX_ROBUST) == 0);
  must(pthread_mutex_init(&local, &a) == 0 && pthread_mutexattr_setpshared(&a, PTHREAD_PROCESS_SHARED) == 0);
  must(pthread_mutex_init(shared, &a) == 0);
  make_gate();
  pid_t child = fork_at_gate();
  if (child == 0) {
    must(pthread_mutex_lock(shared) == 0);
    wait_at_gate();
    _exit(0);
  }
  must(pthread_create(&t, NULL, die, NULL) == 0);
  await_call(child, child, SYS_read);
  while (pthread_mutex_trylock(&local) == 0) must(pthread_mutex_unlock(&local) == 0);
  struct call waiting;
  call_in_thread(&waiting, SYS_futex, take, shared);
  ready();
  still_inside(&waiting);
  open_gate();
  ended_well(child);
  must(end_of_call(&waiting) == EOWNERDEAD);
  must(pthread_join(t, NULL) == 0 && pthread_mutex_lock(&local) == EOWNERDEAD);
  must(pthread_mutex_consistent(&local) == 0 && pthread_mutex_unlock(&local) == 0 &&
       pthread_mutex_lock(&local) == 0);
  pass();
}
