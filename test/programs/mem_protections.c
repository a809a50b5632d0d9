/* mprotect(2): each page of a mapping with its own protection, and content behind all of them, PROT_NONE too.
 * What is forbidden is SIGSEGV with SEGV_ACCERR. */
#include "areas.h"

#include <setjmp.h>

static sigjmp_buf out;
static volatile int code;

static void on_fault(int signal, siginfo_t* info, void* context) {
  (void)signal, (void)context;
  code = info->si_code;
  siglongjmp(out, 1);
}

static bool can_read(volatile char* at) {
  if (sigsetjmp(out, 1) != 0) return false;
  (void)*at;
  return true;
}

static bool can_write(volatile char* at) {
  if (sigsetjmp(out, 1) != 0) return false;
  *at = *at;
  return true;
}

int main(void) {
  const int kinds[4] = {PROT_NONE, PROT_READ, PROT_READ | PROT_WRITE, PROT_READ | PROT_EXEC};
  const char* shown[4] = {"---p", "r--p", "rw-p", "r-xp"};
  char* p = map_anonymous(40 * PAGE, MAP_PRIVATE);
  for (int i = 0; i < 40; i++) fill_pattern(p + i * PAGE, PAGE, i);
  for (int i = 0; i < 40; i++) must(mprotect(p + i * PAGE, PAGE, kinds[i % 4]) == 0);
  struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
  sigaction(SIGSEGV, &action, NULL);
  ready();
  for (int i = 0; i < 40; i++) {
    struct area a;
    must(find_area(p + i * PAGE, &a) && strcmp(a.mode, shown[i % 4]) == 0);
    code = 0;
    must(can_read(p + i * PAGE) == (i % 4 != 0));
    must(can_write(p + i * PAGE) == (i % 4 == 2));
    if (i % 4 != 2) must(code == SEGV_ACCERR);
  }
  must(mprotect(p, 40 * PAGE, PROT_READ | PROT_WRITE) == 0);
  for (int i = 0; i < 40; i++) must(check_pattern(p + i * PAGE, PAGE, i) == PAGE);
  pass();
}
