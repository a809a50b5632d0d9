/* Afterwards the tree grows as before: new children get pids that nobody has, threads and groups are made,
 * and ended children are reported by SIGCHLD. */
#include "meanwhile.h"

static volatile sig_atomic_t told;
static void count(int s) { (void)s, told++; }
static void* nothing(void* arg) { return arg; }

int main(void) {
  make_gate();
  pid_t old[5];
  for (int i = 0; i < 5; i++) {
    old[i] = fork_at_gate();
    if (old[i] == 0) {
      wait_at_gate();
      _exit(0);
    }
  }
  struct sigaction a = {.sa_handler = count, .sa_flags = SA_RESTART};
  must(sigaction(SIGCHLD, &a, NULL) == 0);
  ready();
  for (int k = 0; k < 20; k++) {
    pthread_t thread;
    must(pthread_create(&thread, NULL, nothing, NULL) == 0 && pthread_join(thread, NULL) == 0);
    int before = told;
    pid_t child = fork();
    must(child >= 0);
    if (child == 0) _exit(getppid() == old[0] ? 1 : 0);
    must(child != getpid() && child != 1);
    for (int i = 0; i < 5; i++) must(child != old[i]);
    ended_well(child);
    must(told == before + 1);
  }
  open_gate();
  for (int i = 0; i < 5; i++) ended_well(old[i]);
  pass();
}
