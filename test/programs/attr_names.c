/* proc(5): what a process is called: comm of process and thread, arguments and environment (also changed in
 * place), and the executable. */
#include "meanwhile.h"

#include <sys/prctl.h>

extern char** environ;
static char cmdline[4096], env[65536], thread_name[32];
static pid_t tid;

static void* other(void* unused) {
  (void)unused;
  prctl(PR_SET_NAME, "a thread: (x)");
  __atomic_store_n(&tid, gettid(), __ATOMIC_SEQ_CST);
  wait_at_gate();
  prctl(PR_GET_NAME, thread_name);
  return NULL;
}

int main(int argc, char** argv) {
  char exe[512] = {0}, now[65536], path[64];
  pthread_t t;
  must(argc == 1 && prctl(PR_SET_NAME, "odd) name \n") == 0);
  memset(argv[0], 'v', 3); /* as setproctitle does */
  setenv("ADDED", "later", 1);
  size_t n_cmdline = read_text("/proc/self/cmdline", cmdline, sizeof cmdline),
         n_env = read_text("/proc/self/environ", env, sizeof env);
  must(n_cmdline > 3 && n_env > 3 && memcmp(cmdline, "vvv", 3) == 0 &&
       readlink("/proc/self/exe", exe, 511) > 0);
  make_gate();
  must(pthread_create(&t, NULL, other, NULL) == 0);
  while (__atomic_load_n(&tid, __ATOMIC_SEQ_CST) == 0) nap_ms(1);
  await_call(getpid(), tid, SYS_read);
  ready();
  must(read_text("/proc/self/cmdline", now, sizeof now) == n_cmdline && memcmp(now, cmdline, n_cmdline) == 0);
  must(read_text("/proc/self/environ", now, sizeof now) == n_env && memcmp(now, env, n_env) == 0);
  must(readlink("/proc/self/exe", now, sizeof now) == (ssize_t)strlen(exe) &&
       memcmp(now, exe, strlen(exe)) == 0);
  must(read_text("/proc/self/comm", now, sizeof now) == 12 && strcmp(now, "odd) name \n\n") == 0);
  snprintf(path, sizeof path, "/proc/self/task/%d/comm", (int)tid);
  must(read_text(path, now, sizeof now) > 0 && strcmp(now, "a thread: (x)\n") == 0);
  open_gate();
  must(pthread_join(t, NULL) == 0 && strcmp(thread_name, "a thread: (x)") == 0 &&
       strcmp(getenv("ADDED"), "later") == 0);
  pass();
}
