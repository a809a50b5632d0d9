/* sigaction(2): every signal's handler, flags and mask, whatever the mixture. */
#include "behaviour.h"

static void plain(int s) { (void)s; }
static void with_info(int s, siginfo_t* i, void* c) { (void)s, (void)i, (void)c; }

static struct sigaction action_for(int s) {
  static const int flags[] = {
      0, SA_RESTART, SA_SIGINFO, SA_ONSTACK | SA_SIGINFO, SA_NODEFER, SA_RESETHAND | SA_RESTART};
  struct sigaction a;
  memset(&a, 0, sizeof a);
  a.sa_flags = flags[(unsigned)s % 6];
  if (s == SIGCHLD) a.sa_flags |= SA_NOCLDSTOP | SA_NOCLDWAIT;
  sigemptyset(&a.sa_mask);
  for (int m = 1 + s % 5; m <= SIGRTMAX; m += 3 + s % 7) sigaddset(&a.sa_mask, m);
  sigdelset(&a.sa_mask, SIGKILL);
  sigdelset(&a.sa_mask, SIGSTOP);
  if ((a.sa_flags & SA_SIGINFO) != 0)
    a.sa_sigaction = with_info;
  else
    a.sa_handler = s % 9 == 0 ? SIG_IGN : s % 9 == 4 ? SIG_DFL : plain;
  return a;
}

static int settable(int s) { return s != SIGKILL && s != SIGSTOP && (s < 32 || s >= SIGRTMIN); }

int main(void) {
  for (int s = 1; s <= SIGRTMAX; s++) {
    struct sigaction a = action_for(s);
    if (settable(s)) must(sigaction(s, &a, NULL) == 0);
  }
  ready();
  for (int s = 1; s <= SIGRTMAX; s++) {
    struct sigaction a = action_for(s), now;
    if (!settable(s)) continue;
    must(sigaction(s, NULL, &now) == 0);
    now.sa_flags &= ~0x04000000; /* SA_RESTORER, the C library's own */
    if (now.sa_handler != a.sa_handler || now.sa_flags != a.sa_flags)
      fail("signal %d: flags %#x", s, (unsigned)now.sa_flags);
    for (int m = 1; m <= SIGRTMAX; m++) {
      if (sigismember(&now.sa_mask, m) != sigismember(&a.sa_mask, m)) fail("signal %d: mask of %d", s, m);
    }
  }
  pass();
}
