/* sched(7): nice, policy, reset-on-fork, CPU affinity, I/O priority and timer slack of each thread. */
#include "meanwhile.h"

#include <sched.h>
#include <sys/prctl.h>
#include <sys/resource.h>

struct facts {
  int nice, policy, ioprio, cpu, slack;
};

static struct facts now(void) {
  cpu_set_t set;
  CPU_ZERO(&set);
  must(sched_getaffinity(0, sizeof set, &set) == 0);
  struct facts f = {getpriority(PRIO_PROCESS, (id_t)gettid()), sched_getscheduler(0),
                    (int)syscall(SYS_ioprio_get, 1, 0), 0, prctl(PR_GET_TIMERSLACK)};
  for (int i = 0; i < 30; i++) f.cpu |= CPU_ISSET(i, &set) ? 1 << i : 0;
  return f;
}

static void same(const char* who, struct facts a, struct facts b) {
  if (memcmp(&a, &b, sizeof a) != 0)
    fail("%s: nice %d policy %x ioprio %x cpus %x slack %d; was %d %x %x %x %d", who, b.nice,
         (unsigned)b.policy, (unsigned)b.ioprio, (unsigned)b.cpu, b.slack, a.nice, (unsigned)a.policy,
         (unsigned)a.ioprio, (unsigned)a.cpu, a.slack);
}

static pid_t tid;
static void* other(void* unused) {
  (void)unused;
  struct sched_param p = {0};
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(0, &one);
  must(sched_setaffinity(0, sizeof one, &one) == 0 && setpriority(PRIO_PROCESS, (id_t)gettid(), 7) == 0);
  must(sched_setscheduler(0, SCHED_BATCH, &p) == 0 && syscall(SYS_ioprio_set, 1, 0, 2 << 13 | 6) == 0);
  must(prctl(PR_SET_TIMERSLACK, 77777) == 0);
  struct facts before = now();
  __atomic_store_n(&tid, gettid(), __ATOMIC_SEQ_CST);
  wait_at_gate();
  same("thread", before, now());
  return NULL;
}

int main(void) {
  struct sched_param p = {0};
  pthread_t t;
  make_gate();
  must(pthread_create(&t, NULL, other, NULL) == 0);
  while (__atomic_load_n(&tid, __ATOMIC_SEQ_CST) == 0) nap_ms(1);
  await_call(getpid(), tid, SYS_read);
  must(prctl(PR_SET_TIMERSLACK, 123456) == 0 && setpriority(PRIO_PROCESS, 0, 3) == 0);
  must(sched_setscheduler(0, SCHED_IDLE | SCHED_RESET_ON_FORK, &p) == 0 &&
       syscall(SYS_ioprio_set, 1, 0, 3 << 13) == 0);
  struct facts before = now();
  ready();
  same("process", before, now());
  open_gate();
  must(pthread_join(t, NULL) == 0);
  pass();
}
