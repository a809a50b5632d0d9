/* Things that cannot be carried: each argument sets one up and says "NAME pid fd" (fd -1: it is no descriptor's), or
 * "NAME skip" where this machine or user cannot have it. Once READY is said and the file BEHAVIOUR_GO is there, what
 * can be tried is tried again: nothing may have suffered. */
#include "../programs/meanwhile.h"

#include <arpa/inet.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/landlock.h>
#include <linux/netlink.h>
#include <linux/perf_event.h>
#include <linux/seccomp.h>
#include <mqueue.h>
#include <netinet/in.h>
#include <sched.h>
#include <stddef.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/prctl.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/un.h>

static void say(const char *name, pid_t pid, int fd) {
  char line[128];
  snprintf(line, sizeof line, "%s %d %d\n", name, (int)pid, fd);
  behaviour_say(line);
}

static void skip(const char *name) {
  char line[128];
  snprintf(line, sizeof line, "%s skip\n", name);
  behaviour_say(line);
}

/* A child that prepares something and waits; it says itself whether that worked. */
static void child(const char *name, int (*prepare)(void)) {
  int p[2];
  char ok = 0;
  must(pipe2(p, O_CLOEXEC) == 0);
  pid_t pid = fork_at_gate();
  if (pid == 0) {
    ok = prepare() == 0 ? 'y' : 'n';
    must(write(p[1], &ok, 1) == 1 && close(p[1]) == 0 && close(p[0]) == 0);
    wait_at_gate();
    _exit(0);
  }
  must(close(p[1]) == 0 && read(p[0], &ok, 1) == 1 && close(p[0]) == 0);
  ok == 'y' ? say(name, pid, -1) : skip(name);
}

static int inotify(void) {
  int fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
  must(inotify_add_watch(fd, scratch("."), IN_CREATE) >= 0);
  return fd;
}

static int netlink(void) { return socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE); }
static int packet(void) { return socket(AF_PACKET, SOCK_DGRAM, 0); }
static int raw(void) { return socket(AF_INET, SOCK_RAW, IPPROTO_ICMP); }
static int vsock(void) { return socket(AF_VSOCK, SOCK_STREAM, 0); }
static int alg(void) { return socket(AF_ALG, SOCK_SEQPACKET, 0); }
static int mptcp(void) { return socket(AF_INET, SOCK_STREAM, 262); }
static int pidfd(void) { return (int)syscall(SYS_pidfd_open, getpid(), 0); }
static int uffd(void) { return (int)syscall(SYS_userfaultfd, O_CLOEXEC | 1 /* UFFD_USER_MODE_ONLY */); }
static int fuse(void) { return open("/dev/fuse", O_RDWR); }
static int namespace_file(void) { return open("/proc/self/ns/uts", O_RDONLY); }

static int fanotify(void) { return (int)syscall(SYS_fanotify_init, 0x200 /* FAN_REPORT_FID */, O_RDONLY); }

static int perf(void) {
  struct perf_event_attr a = {.type = PERF_TYPE_SOFTWARE, .size = sizeof a, .config = PERF_COUNT_SW_TASK_CLOCK, .exclude_kernel = 1};
  return (int)syscall(SYS_perf_event_open, &a, 0, -1, -1, 0);
}

static int landlock(void) {
  struct landlock_ruleset_attr a = {.handled_access_fs = LANDLOCK_ACCESS_FS_WRITE_FILE};
  return (int)syscall(SYS_landlock_create_ruleset, &a, sizeof a, 0);
}

static int mqueue(void) {
  char name[64];
  snprintf(name, sizeof name, "/virt-run-things-%d", (int)getpid());
  return (int)mq_open(name, O_RDWR | O_CREAT, 0600, NULL);
}

static int huge(void) { return memfd_create("huge", 4 /* MFD_HUGETLB */); }
static int secret(void) { return (int)syscall(SYS_memfd_secret, 0); }

static int lease(void) {
  int fd = open(scratch("leased"), O_RDWR | O_CREAT, 0600);
  return fcntl(fd, F_SETLEASE, F_WRLCK) == 0 ? fd : -1;
}

static int replaced(void) {
  int fd = open(scratch("replaced"), O_RDWR | O_CREAT, 0600);
  must(rename(scratch("replaced"), scratch("replaced-away")) == 0 && link(scratch("replaced-away"), scratch("other")) == 0);
  must(unlink(scratch("replaced-away")) == 0);
  return fd;
}

static int removed_directory(void) {
  must(mkdir(scratch("removed"), 0700) == 0);
  int fd = open(scratch("removed"), O_RDONLY | O_DIRECTORY);
  must(rmdir(scratch("removed")) == 0);
  return fd;
}

static int tcp_outside(void) {
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons((uint16_t)atoi(getenv("OUTSIDE_PORT")))};
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  must(connect(fd, (struct sockaddr *)&a, sizeof a) == 0);
  return fd;
}

static int unix_outside(void) {
  struct sockaddr_un a = {.sun_family = AF_UNIX};
  int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  strcpy(a.sun_path, getenv("OUTSIDE_PATH"));
  must(connect(fd, (struct sockaddr *)&a, sizeof a) == 0);
  return fd;
}

static int backlog(int family, int *client) {
  struct sockaddr_storage a = {.ss_family = (sa_family_t)family};
  socklen_t n = sizeof a;
  int fd = socket(family, SOCK_STREAM, 0);
  must(bind(fd, (struct sockaddr *)&a, family == AF_UNIX ? sizeof(sa_family_t) : sizeof(struct sockaddr_in)) == 0 && listen(fd, 3) == 0);
  must(getsockname(fd, (struct sockaddr *)&a, &n) == 0);
  *client = socket(family, SOCK_STREAM, 0);
  must(connect(*client, (struct sockaddr *)&a, n) == 0);
  return fd;
}

static int unix_backlog(void) {
  int client;
  return backlog(AF_UNIX, &client);
}

static int tcp_backlog(void) {
  int client, fd = backlog(AF_INET, &client);
  must(dup2(client, 500) == 500 && close(client) == 0); /* a connection: it is refused as well */
  return fd;
}

static int udp_queue(void) {
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t n = sizeof a;
  int fd = socket(AF_INET, SOCK_DGRAM, 0);
  must(bind(fd, (struct sockaddr *)&a, sizeof a) == 0 && getsockname(fd, (struct sockaddr *)&a, &n) == 0);
  must(sendto(fd, "waits", 5, 0, (struct sockaddr *)&a, sizeof a) == 5);
  return fd;
}

static int in_flight(void) {
  int s[2], one = open("/dev/null", O_RDONLY);
  char byte = 'x', control[CMSG_SPACE(sizeof(int))] __attribute__((aligned(8)));
  struct iovec v = {&byte, 1};
  struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
  must(socketpair(AF_UNIX, SOCK_STREAM, 0, s) == 0);
  *CMSG_FIRSTHDR(&m) = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof one), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
  memcpy(CMSG_DATA(CMSG_FIRSTHDR(&m)), &one, sizeof one);
  must(sendmsg(s[0], &m, 0) == 1 && close(one) == 0);
  return s[1];
}

static int packet_pipe(void) {
  int p[2];
  must(pipe2(p, O_DIRECT) == 0 && write(p[1], "one", 3) == 3 && write(p[1], "two", 3) == 3);
  return p[0];
}

static int filtered(void) {
  struct sock_filter all[] = {{BPF_RET | BPF_K, 0, 0, 0xffff}};
  struct sock_fprog program = {1, all};
  int fd = socket(AF_INET, SOCK_DGRAM, 0);
  must(setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program) == 0);
  return fd;
}

static int own_seccomp(void) {
  struct sock_filter all[] = {{BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW}};
  struct sock_fprog program = {1, all};
  must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
  return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

static int own_namespace(void) { return unshare(geteuid() == 0 ? CLONE_NEWUTS : CLONE_NEWUSER | CLONE_NEWUTS); }
static int namespace_for_children(void) { return geteuid() == 0 ? unshare(CLONE_NEWPID) : -1; }

/* Nobody may look into it, and nobody may make it ask for that to be changed. */
static int sealed(void) {
  struct sock_filter no_prctl[] = {{BPF_LD | BPF_W | BPF_ABS, 0, 0, offsetof(struct seccomp_data, nr)},
                                   {BPF_JMP | BPF_JEQ | BPF_K, 0, 1, SYS_prctl},
                                   {BPF_RET | BPF_K, 0, 0, SECCOMP_RET_KILL_PROCESS},
                                   {BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW}};
  struct sock_fprog program = {sizeof no_prctl / sizeof no_prctl[0], no_prctl};
  must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_DUMPABLE, 0) == 0);
  return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

static int removed_cwd(void) {
  return mkdir(scratch("cwd"), 0700) == 0 && chdir(scratch("cwd")) == 0 && rmdir(scratch("cwd")) == 0 ? 0 : -1;
}

static void *unlike(void *arg) {
  must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0); /* of this thread alone */
  *(volatile int *)arg = 1;
  pause();
  return NULL;
}

static int unlike_threads(void) {
  static volatile int done;
  pthread_t t;
  must(pthread_create(&t, NULL, unlike, (void *)&done) == 0);
  while (!done) nap_ms(1);
  return 0;
}

static int semaphores(void) { return semget(IPC_PRIVATE, 2, 0600); }
static int messages(void) { return msgget(IPC_PRIVATE, 0600); }
static int segment(void) { return shmget(IPC_PRIVATE, 4096, 0600); }

static const struct {
  const char *name;
  int (*open)(void);
  enum { descriptor, process, system_v } what;
} things[] = {
    {"inotify", inotify, descriptor}, {"fanotify", fanotify, descriptor}, {"netlink", netlink, descriptor},
    {"packet", packet, descriptor}, {"raw", raw, descriptor}, {"vsock", vsock, descriptor}, {"alg", alg, descriptor},
    {"mptcp", mptcp, descriptor}, {"pidfd", pidfd, descriptor}, {"userfaultfd", uffd, descriptor}, {"perf", perf, descriptor},
    {"landlock", landlock, descriptor}, {"fuse", fuse, descriptor}, {"namespace-file", namespace_file, descriptor},
    {"mqueue", mqueue, descriptor}, {"huge-memfd", huge, descriptor}, {"secret", secret, descriptor}, {"lease", lease, descriptor},
    {"replaced", replaced, descriptor}, {"removed-directory", removed_directory, descriptor},
    {"tcp-outside", tcp_outside, descriptor}, {"unix-outside", unix_outside, descriptor},
    {"tcp-backlog", tcp_backlog, descriptor}, {"unix-backlog", unix_backlog, descriptor}, {"udp-queue", udp_queue, descriptor},
    {"in-flight", in_flight, descriptor}, {"packet-pipe", packet_pipe, descriptor}, {"filtered", filtered, descriptor},
    {"own-seccomp", own_seccomp, process}, {"own-namespace", own_namespace, process},
    {"namespace-for-children", namespace_for_children, process}, {"sealed", sealed, process},
    {"removed-cwd", removed_cwd, process}, {"unlike-threads", unlike_threads, process},
    {"semaphores", semaphores, system_v}, {"messages", messages, system_v}, {"segment", segment, system_v},
};

int main(int argc, char **argv) {
  make_gate();
  int watching = -1, queue = -1, server = -1;
  for (int a = 1; a < argc; a++) {
    size_t i = 0;
    while (strcmp(things[i].name, argv[a]) != 0) must(++i < sizeof things / sizeof things[0]);
    if (things[i].what == process) {
      child(argv[a], things[i].open);
      continue;
    }
    int fd = things[i].open();
    if (fd < 0) skip(argv[a]);
    else say(argv[a], things[i].what == descriptor ? getpid() : 0, things[i].what == descriptor ? fd : -1);
    if (things[i].open == inotify) watching = fd;
    if (things[i].open == udp_queue) queue = fd;
    if (things[i].open == tcp_backlog) server = fd;
  }
  must(syscall(425 /* io_uring_setup */, 1, NULL) == -1 && errno == ENOSYS);
  ready();
  char text[512];
  if (watching >= 0) {
    must(open(scratch("created"), O_WRONLY | O_CREAT, 0600) >= 0 && read(watching, text, sizeof text) > 0);
  }
  must(queue < 0 || recv(queue, text, sizeof text, 0) == 5);
  must(server < 0 || accept(server, NULL, NULL) >= 0);
  open_gate();
  while (wait(NULL) > 0) {
  }
  pass();
}
