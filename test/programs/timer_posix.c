/* timer_create(2): POSIX timers keep their ids (with gaps), clocks, signals and values, what remains and
 * their period; for a process, a thread and nobody. */
#include "meanwhile.h"

static volatile sig_atomic_t ticks, value_was;
static void on_tick(int s, siginfo_t* info, void* context) {
  (void)s, (void)context, value_was = info->si_value.sival_int, ticks++;
}

static int make(clockid_t clock, int notify, int signal, int value) {
  struct sigevent e = {.sigev_notify = notify, .sigev_signo = signal, .sigev_value.sival_int = value};
  e._sigev_un._tid = gettid();
  int id = -1; /* the kernel's, as the library's timer_t may be another number */
  must(syscall(SYS_timer_create, clock, &e, &id) == 0);
  return id;
}

static void set(int id, int flags, double value, double interval) {
  struct itimerspec t = {{(time_t)interval, (long)((interval - (double)(time_t)interval) * 1e9)},
                         {(time_t)value, (long)((value - (double)(time_t)value) * 1e9)}};
  must(syscall(SYS_timer_settime, id, flags, &t, NULL) == 0);
}

int main(void) {
  struct sigaction a = {.sa_sigaction = on_tick, .sa_flags = SA_SIGINFO | SA_RESTART};
  must(sigaction(SIGRTMIN, &a, NULL) == 0);
  int far = make(CLOCK_MONOTONIC, SIGEV_SIGNAL, SIGUSR1, 1), gap = make(CLOCK_REALTIME, SIGEV_NONE, 0, 0);
  int none = make(CLOCK_BOOTTIME, SIGEV_NONE, 0, 0),
      thread = make(CLOCK_MONOTONIC, SIGEV_THREAD_ID, SIGRTMIN, 4711);
  int cpu = make(CLOCK_PROCESS_CPUTIME_ID, SIGEV_SIGNAL, SIGUSR2, 2),
      off = make(CLOCK_REALTIME, SIGEV_SIGNAL, SIGUSR2, 3);
  clockid_t own;
  must(pthread_getcpuclockid(pthread_self(), &own) == 0);
  int dynamic = make(own, SIGEV_SIGNAL, SIGUSR2, 5);
  must(syscall(SYS_timer_delete, gap) == 0);
  set(far, TIMER_ABSTIME, seconds(CLOCK_MONOTONIC) + 100, 0);
  set(none, 0, 50, 5);
  set(thread, 0, 0.01, 0.01);
  set(cpu, 0, 30, 0);
  set(dynamic, 0, 40, 0);
  double began = seconds(CLOCK_MONOTONIC);
  ready();
  ticks = 0;
  double passed = seconds(CLOCK_MONOTONIC) - began;
  struct itimerspec now;
  must(syscall(SYS_timer_gettime, gap, &now) == -1 && errno == EINVAL);
  must(syscall(SYS_timer_gettime, far, &now) == 0 && now.it_interval.tv_sec == 0);
  must(now.it_value.tv_sec >= 98 - (int)passed && now.it_value.tv_sec <= 100);
  must(syscall(SYS_timer_gettime, none, &now) == 0 && now.it_interval.tv_sec == 5 &&
       now.it_value.tv_sec >= 45);
  must(syscall(SYS_timer_gettime, cpu, &now) == 0 && now.it_value.tv_sec >= 28 && now.it_value.tv_sec < 31);
  must(syscall(SYS_timer_gettime, dynamic, &now) == 0 && now.it_value.tv_sec >= 38 &&
       now.it_value.tv_sec < 41);
  must(syscall(SYS_timer_gettime, off, &now) == 0 && now.it_value.tv_sec == 0 && now.it_value.tv_nsec == 0);
  for (int i = 0; i < 20000 && ticks == 0; i++) nap_ms(1);
  must(ticks > 0 && value_was == 4711);
  pass();
}
