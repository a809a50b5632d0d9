/* futex(2) in shared memory: a process that waits on a process-shared mutex and condition variable is woken
 * by its relative afterwards; the mutex the parent holds is held. */
#include "areas.h"
#include "meanwhile.h"
#include "relatives.h"

#include <pthread.h>

static struct shared {
  pthread_mutex_t lock, held;
  pthread_cond_t changed;
  int turn;
} * s;

static void check(void) {
  must(pthread_mutex_trylock(&s->held) == EBUSY);
  pthread_mutex_lock(&s->lock);
  must(s->turn == 1);
  s->turn = 2;
  pthread_cond_broadcast(&s->changed);
  pthread_mutex_unlock(&s->lock);
}

int main(void) {
  s = map_anonymous(PAGE, MAP_SHARED);
  pthread_mutexattr_t a;
  pthread_condattr_t c;
  must(pthread_mutexattr_init(&a) == 0 && pthread_mutexattr_setpshared(&a, PTHREAD_PROCESS_SHARED) == 0);
  must(pthread_condattr_init(&c) == 0 && pthread_condattr_setpshared(&c, PTHREAD_PROCESS_SHARED) == 0);
  must(pthread_mutex_init(&s->lock, &a) == 0 && pthread_mutex_init(&s->held, &a) == 0);
  must(pthread_cond_init(&s->changed, &c) == 0 && pthread_mutex_lock(&s->held) == 0);
  pid_t checker = relative(NULL, check);
  pid_t waiter = fork();
  must(waiter >= 0);
  if (waiter == 0) {
    pthread_mutex_lock(&s->lock);
    s->turn = 1;
    while (s->turn != 2) pthread_cond_wait(&s->changed, &s->lock); /* in the kernel while it happens */
    pthread_mutex_unlock(&s->lock);
    _exit(0);
  }
  while (__atomic_load_n(&s->turn, __ATOMIC_ACQUIRE) != 1) nap_ms(1);
  await_call(waiter, waiter, SYS_futex);
  ready();
  join_relative(checker);
  join_relative(waiter);
  must(s->turn == 2 && pthread_mutex_unlock(&s->held) == 0);
  pass();
}
