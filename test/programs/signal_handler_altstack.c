/* sigaltstack(2): a thread that is inside a handler on its alternate stack comes back from it to where it
 * was, the stack is still registered, and was known to be in use all the time. */
#include "meanwhile.h"

static char other[128 << 10];
static volatile int inside, leave, known, saw;

static void handle(int s, siginfo_t* info, void* context) {
  stack_t stack;
  char here;
  (void)context;
  saw = s == SIGUSR1 && info->si_code == SI_TKILL && &here >= other && &here < other + sizeof other;
  inside = 1;
  while (!leave) nap_ms(1);
  known = sigaltstack(NULL, &stack) == 0 && stack.ss_flags == SS_ONSTACK && stack.ss_sp == other;
}

static void* run(void* arg) {
  stack_t stack = {.ss_sp = other, .ss_size = sizeof other}, now;
  volatile long local = 0x1357924680;
  must(sigaltstack(&stack, NULL) == 0);
  must(raise(SIGUSR1) == 0); /* back only when the handler is done */
  must(local == 0x1357924680 && saw && known && leave);
  must(sigaltstack(NULL, &now) == 0 && now.ss_sp == other && now.ss_size == sizeof other &&
       now.ss_flags == 0);
  return arg;
}

int main(void) {
  struct sigaction a = {.sa_sigaction = handle, .sa_flags = SA_SIGINFO | SA_ONSTACK};
  pthread_t thread;
  must(sigaction(SIGUSR1, &a, NULL) == 0 && pthread_create(&thread, NULL, run, NULL) == 0);
  while (!inside) nap_ms(1);
  ready();
  leave = 1;
  must(pthread_join(thread, NULL) == 0);
  pass();
}
