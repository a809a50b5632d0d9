/* What one system call takes, in microseconds at the median.
 *
 *   calls unselected        getppid(2)
 *   calls filtered          the same under a filter (seccomp(2)) that says nothing but yes
 *   calls selected          open(2) of a file of the working directory for writing, a different one each time
 *   calls notified          as selected, with a listener (seccomp_unotify(2)) that reads 64 bytes of the caller and lets
 *                           it pass: the least that anybody who is asked can do
 *   calls under PROGRAM …   a program under such a listener, asked about files opened for writing and unlinked */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { kCalls = 4096, kFiles = 512 };
static double took[kCalls];
static int handover[2];

static double now_us(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static int compare(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return x < y ? -1 : x > y;
}

static void *answer(void *unused) {
  (void)unused;
  int fd;
  if (read(handover[0], &fd, sizeof fd) != sizeof fd) exit(1);
  ioctl(fd, _IOW('!', 4, unsigned long), 1UL); /* SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP, Linux 6.6 */
  for (;;) {
    struct seccomp_notif n;
    memset(&n, 0, sizeof n);
    if (ioctl(fd, SECCOMP_IOCTL_NOTIF_RECV, &n) != 0) continue;
    char bytes[64];
    struct iovec local = {bytes, sizeof bytes}, remote = {(void *)n.data.args[1], sizeof bytes};
    if (n.data.nr != SYS_openat) remote.iov_base = (void *)n.data.args[0];
    process_vm_readv((pid_t)n.pid, &local, 1, &remote, 1, 0);
    struct seccomp_notif_resp r = {.id = n.id, .flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE};
    ioctl(fd, SECCOMP_IOCTL_NOTIF_SEND, &r);
  }
  return NULL;
}

static void filter(void) {
  struct sock_filter f[] = {BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
  struct sock_fprog p = {sizeof f / sizeof f[0], f};
  prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &p) != 0) exit(1);
}

static void notify(void) {
  struct sock_filter f[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_unlink, 3, 0),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat, 0, 3),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[2])),
      BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, O_WRONLY | O_RDWR | O_CREAT | O_TRUNC, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  struct sock_fprog p = {sizeof f / sizeof f[0], f};
  pthread_t thread;
  if (pipe(handover) != 0 || pthread_create(&thread, NULL, answer, NULL) != 0) exit(1);
  prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  int fd = (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &p);
  if (fd < 0 || write(handover[1], &fd, sizeof fd) != sizeof fd) exit(1);
}

static void measure(int unselected) {
  char names[kFiles][32];
  for (int i = 0; i < kFiles; i++) {
    snprintf(names[i], sizeof names[i], "call-%d", i);
    close(open(names[i], O_CREAT | O_WRONLY, 0600));
  }
  usleep(200000);
  for (int i = 0; i < kCalls; i++) {
    double start = now_us();
    if (unselected) {
      syscall(SYS_getppid);
      took[i] = now_us() - start;
    } else {
      int fd = open(names[i % kFiles], O_WRONLY);
      took[i] = now_us() - start;
      close(fd);
    }
  }
  qsort(took, kCalls, sizeof took[0], compare);
  printf("%.3f\n", took[kCalls / 2]);
}

int main(int argc, char **argv) {
  int under = argc > 2 && strcmp(argv[1], "under") == 0;
  if (argc != 2 && !under) return 2;
  if (under || strcmp(argv[1], "notified") == 0) {
    notify();
    pid_t pid = fork(); /* the listener stays here */
    if (pid == 0 && under) {
      execvp(argv[2], argv + 2);
      _exit(127);
    }
    if (pid == 0) {
      measure(0);
      fflush(stdout);
      _exit(0);
    }
    waitpid(pid, NULL, 0);
    _exit(0);
  }
  if (strcmp(argv[1], "filtered") == 0) filter();
  measure(strcmp(argv[1], "selected") != 0);
  return 0;
}
