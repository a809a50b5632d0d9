/* Tries to write what is read only and to read what is hidden. Usage: files SEEN WORK [SOCKETS]. SEEN is a read-only directory
 * with `file` and `directory`; WORK is writable, with `sub/secret` and `sub/secrets` hidden and `keep/deep` read only;
 * SOCKETS is the directory of virt-run's control sockets. Standard input is SEEN/file, opened for reading. */
#include "attempt.h"

#include <dirent.h>
#include <linux/fs.h>
#include <pthread.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <sys/xattr.h>

static char *seen, *work, *file, *ours;

/* The same by another way: a file opened for writing through a name. */
static void write_by_name(void) {
  must_not_open("open for writing", open(file, O_WRONLY));
  must_not_open("open for reading and writing", open(file, O_RDWR));
  must_not_open("open to append", open(file, O_WRONLY | O_APPEND));
  must_not_open("open to truncate", open(file, O_RDONLY | O_TRUNC));
  must_not_open("make a file", open(in(seen, "new"), O_CREAT | O_WRONLY, 0600));
  must_not_open("make a file without a name", open(seen, O_TMPFILE | O_RDWR, 0600));
  must_fail("truncate", truncate(file, 1));
  must_fail("chmod", chmod(file, 0666));
  must_fail("chown", chown(file, getuid(), getgid()));
  must_fail("utimes", utimensat(AT_FDCWD, file, NULL, 0));
  must_fail("setxattr", setxattr(file, "user.x", "x", 1, 0));
  must_fail("unlink", unlink(file));
  must_fail("rename away", rename(file, in(work, "taken")));
  must_fail("rename over", rename(ours, file));
  must_fail("exchange", renameat2(AT_FDCWD, ours, AT_FDCWD, file, RENAME_EXCHANGE));
  must_fail("hard link out", link(file, in(work, "linked")));
  must_fail("hard link in", link(ours, in(seen, "linked")));
  must_fail("symlink in", symlink(ours, in(seen, "symlink")));
  must_fail("mkdir", mkdir(in(seen, "new-directory"), 0700));
  must_fail("rmdir", rmdir(in(seen, "directory")));
  must_fail("mkfifo", mknod(in(seen, "fifo"), S_IFIFO | 0600, 0));
  char* way = in(work, "way");
  if (symlink(file, way) == 0) must_not_open("through a symlink", open(way, O_WRONLY));
  unlink(way);
  if (symlink(seen, way) == 0) must_not_open("through a symlink to the directory", open(in(way, "file"), O_WRONLY));
  unlink(way);
  char* self = in("/proc/self/root", file);
  must_not_open("through /proc/self/root", open(self, O_WRONLY));
  int directory = open(seen, O_RDONLY | O_DIRECTORY);
  must_not_open("from a directory's descriptor", openat(directory, "file", O_WRONLY));
  must_not_open("up and down again", open(in(in(work, "../seen"), "file"), O_WRONLY));
  close(directory);
}

static void write_by_descriptor(int fd, const char* which) {
  char link[64], name[128];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  snprintf(name, sizeof name, "reopen %s through /proc/self/fd", which);
  must_not_open(name, open(link, O_WRONLY));
  must_not_open(name, open(link, O_RDWR));
  must_fail(name, truncate(link, 0));
  snprintf(name, sizeof name, "write to %s", which);
  must_fail(name, write(fd, "x", 1));
  must_fail(name, ftruncate(fd, 0));
  must_fail(name, fchmod(fd, 0666));
  int flags = 0;
  if (ioctl(fd, FS_IOC_GETFLAGS, &flags) == 0) {
    flags ^= FS_NODUMP_FL;
    must_fail("change a file's flags", ioctl(fd, FS_IOC_SETFLAGS, &flags));
  }
  must_fail("link a descriptor out", linkat(AT_FDCWD, link, AT_FDCWD, in(work, "relinked"), AT_SYMLINK_FOLLOW));
  must_fail("map for writing", mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED ? -1 : 0);
  char* map = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
  if (map != MAP_FAILED) {
    must_fail("make a mapping writable", mprotect(map, 4096, PROT_READ | PROT_WRITE));
    int mem = open("/proc/self/mem", O_RDWR);
    must_fail("write a mapping through /proc/self/mem", pwrite(mem, "x", 1, (off_t)map));
    close(mem);
    munmap(map, 4096);
  }
}

/* By the file's handle, through another mount of the same file system. */
static void write_by_handle(void) {
  struct {
    struct file_handle head;
    char rest[128];
  } h;
  memset(&h, 0, sizeof h);
  h.head.handle_bytes = sizeof h.rest;
  int mount_id, mount_fd = open(work, O_RDONLY | O_DIRECTORY);
  if (name_to_handle_at(AT_FDCWD, file, &h.head, &mount_id, 0) == 0)
    must_not_open("open by handle", open_by_handle_at(mount_fd, &h.head, O_RDWR));
  close(mount_fd);
}

/* One thread swaps what a path leads to while another opens it. */
static char *swapped, *good, *bad;
static volatile int racing = 1;
static void* swap(void* unused) {
  while (racing) {
    renameat2(AT_FDCWD, good, AT_FDCWD, swapped, RENAME_EXCHANGE);
    renameat2(AT_FDCWD, bad, AT_FDCWD, swapped, RENAME_EXCHANGE);
  }
  return unused;
}
static void race(void) {
  swapped = in(work, "swapped"), good = in(work, "good"), bad = in(work, "bad");
  struct stat st, got;
  if (symlink(ours, good) != 0 || symlink(file, bad) != 0 || symlink(ours, swapped) != 0 || stat(file, &st) != 0) _exit(3);
  pthread_t thread;
  pthread_create(&thread, NULL, swap, NULL);
  int through = 0, opened = 0;
  for (int i = 0; i < 20000; i++) {
    int fd = open(swapped, O_WRONLY);
    if (fd < 0) continue;
    opened++;
    fstat(fd, &got);
    through += got.st_ino == st.st_ino && got.st_dev == st.st_dev;
    close(fd);
  }
  racing = 0;
  pthread_join(thread, NULL);
  attempt("swap a path while it is opened", through > 0 || opened == 0);
  unlink(swapped), unlink(good), unlink(bad);
}

static void change_mounts(void) {
  struct {
    unsigned long long set, clear, propagation, user;
  } writable = {0, 1, 0, 0};
  must_fail("umount", umount2(seen, MNT_DETACH));
  must_fail("umount what hides", umount2(in(work, "sub/secret"), MNT_DETACH));
  must_fail("umount what hides a directory", umount2(in(work, "sub/secrets"), 0));
  must_fail("umount /", umount2("/", MNT_DETACH));
  must_fail("umount /proc", umount2("/proc", MNT_DETACH));
  must_fail("remount", mount(NULL, seen, NULL, MS_REMOUNT | MS_BIND, NULL));
  must_fail("remount the file system", mount(NULL, "/", NULL, MS_REMOUNT, NULL));
  must_fail("bind", mount(work, seen, NULL, MS_BIND, NULL));
  must_fail("make shared", mount(NULL, "/", NULL, MS_SHARED | MS_REC, NULL));
  must_fail("mount a tmpfs", mount("x", work, "tmpfs", 0, NULL));
  must_fail("mount /proc", mount("x", work, "proc", 0, NULL));
  must_fail("mount_setattr", syscall(442, AT_FDCWD, seen, 0, &writable, sizeof writable));
  must_not_open("open_tree", syscall(428, AT_FDCWD, seen, 1));
  must_not_open("fsopen", syscall(430, "tmpfs", 0));
  must_not_open("fspick", syscall(433, AT_FDCWD, "/", 0));
  must_fail("move_mount", syscall(429, AT_FDCWD, work, AT_FDCWD, seen, 0));
  must_fail("pivot_root", syscall(SYS_pivot_root, work, work));
}

/* Another view of the same mounts, in namespaces of our own. */
static void make_namespaces(void) {
  must_fail("make a mount namespace", unshare(CLONE_NEWNS));
  must_fail("make a user and a mount namespace", unshare(CLONE_NEWUSER | CLONE_NEWNS));
  pid_t pid = (pid_t)syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, NULL, NULL, NULL, NULL);
  if (pid == 0) _exit(0);
  attempt("clone into a user namespace", pid > 0);
  if (pid > 0) waitpid(pid, NULL, 0);
  struct {
    unsigned long long flags, pidfd, child_tid, parent_tid, exit_signal, rest[6];
  } args = {CLONE_NEWUSER, 0, 0, 0, SIGCHLD, {0}};
  pid = (pid_t)syscall(435, &args, sizeof args);
  if (pid == 0) _exit(0);
  attempt("clone3 into a user namespace", pid > 0);
  if (pid > 0) waitpid(pid, NULL, 0);
  must_not_open("init's mount namespace", open("/proc/1/ns/mnt", O_RDONLY));
  must_not_open("raise the limit of user namespaces", open("/proc/sys/user/max_user_namespaces", O_WRONLY));
  int own = open("/proc/self/ns/mnt", O_RDONLY);
  must_fail("enter our own mount namespace again", setns(own, 0));
  close(own);
}

static void use_init(void) {
  char path[64], byte;
  for (const char* const* name = (const char*[]){"root", "cwd", "exe", "mem", "environ", "maps", NULL}; *name; name++) {
    must_not_open(in("/proc/1", *name), open(in("/proc/1", *name), O_RDONLY));
  }
  for (int fd = 0; fd < 300; fd++) {
    snprintf(path, sizeof path, "/proc/1/fd/%d", fd);
    int got = open(path, O_RDONLY);
    if (got >= 0) attempt(path, 1);
  }
  must_fail("trace init", ptrace(PTRACE_SEIZE, 1, 0, 0));
  must_fail("attach to init", ptrace(PTRACE_ATTACH, 1, 0, 0));
  int remote = 0;
  struct iovec here = {&byte, 1}, there = {&remote, 1};
  must_fail("read init's memory", process_vm_readv(1, &here, 1, &there, 1, 0));
  int pidfd = (int)syscall(SYS_pidfd_open, 1, 0);
  for (int fd = 0; fd < 12; fd++) must_not_open("take init's descriptor", syscall(SYS_pidfd_getfd, pidfd, fd, 0));
  must_fail("enter init's namespaces", setns(pidfd, CLONE_NEWNS));
  close(pidfd);
}

static void use_rights(void) {
  for (int cap = 0; cap <= 40; cap++) {
    if (cap == 21 || cap == 19 || cap == 24 || cap == 27 || cap == 12 || cap == 17)
      attempt("a capability in the bounding set", prctl(PR_CAPBSET_READ, cap) != 0);
  }
  must_fail("io_uring", syscall(425, 1, calloc(1, 256)));
  if (chroot(work) == 0) {
    struct stat st, root;
    attempt("out of a chroot", chdir("../../../../../..") == 0 && stat(".", &st) == 0 && stat("/proc/1/root", &root) == 0);
    if (chdir("../../../../..") != 0 || chroot(".") != 0) _exit(3);
    must_not_open("open for writing after chroot", open(file, O_WRONLY));
  }
  struct stat st;
  char* node = in(work, "node");
  if (stat(seen, &st) == 0 && mknod(node, S_IFBLK | 0600, st.st_dev) == 0)
    must_not_open("open a disk's node", open(node, O_WRONLY));
  unlink(node);
  DIR* devices = opendir("/dev");
  for (struct dirent* d; devices && (d = readdir(devices));)
    if (d->d_type == DT_BLK) must_not_open("open a disk", open(in("/dev", d->d_name), O_WRONLY));
  for (const char* const* name =
           (const char*[]){"/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/proc/sys/kernel/modprobe",
                           "/sys/kernel/uevent_helper", "/sys/fs/cgroup/memory/release_agent", "/dev/mem", "/dev/kmsg",
                           "/dev/loop-control", NULL};
       *name; name++)
    must_not_open(*name, open(*name, O_WRONLY));
}

/* A name that leads elsewhere than the rule was made for. */
static void move_names(void) {
  must_fail("rename what is hidden", rename(in(work, "sub/secret"), in(work, "out")));
  must_fail("remove what is hidden", unlink(in(work, "sub/secret")));
  must_fail("remove the hidden directory", rmdir(in(work, "sub/secrets")));
  must_fail("rename over what is hidden", rename(ours, in(work, "sub/secret")));
  must_fail("rename the directory above", rename(in(work, "sub"), in(work, "moved")));
  must_fail("exchange the directory above", renameat2(AT_FDCWD, in(work, "sub"), AT_FDCWD, in(work, "keep"), RENAME_EXCHANGE));
  must_fail("rename the directory above what is read only", rename(in(work, "keep"), in(work, "moved")));
  must_fail("rename what is read only", rename(in(work, "keep/deep"), in(work, "keep/moved")));
  must_fail("rename the writable directory", rename(work, in(seen, "moved")));
  must_not_open("write what is read only in a writable one", open(in(work, "keep/deep/file"), O_WRONLY));
  must_not_open("make a file there", open(in(work, "keep/deep/new"), O_WRONLY | O_CREAT, 0600));
}

static void read_hidden(void) {
  char text[64] = "";
  int fd = open(in(work, "sub/secret"), O_RDONLY);
  attempt("read what is hidden", fd >= 0 && read(fd, text, sizeof text) > 0);
  must_not_open("write what is hidden", open(in(work, "sub/secret"), O_WRONLY));
  must_not_open("look into the hidden directory", open(in(work, "sub/secrets/inner"), O_RDONLY));
  must_not_open("make a file in the hidden directory", open(in(work, "sub/secrets/new"), O_CREAT | O_WRONLY, 0600));
  must_fail("link what is hidden", link(in(work, "sub/secret"), in(work, "linked")));
  int sub = open(in(work, "sub"), O_RDONLY | O_DIRECTORY);
  fd = openat(sub, "secret", O_RDONLY);
  attempt("read what is hidden from a descriptor", fd >= 0 && read(fd, text, sizeof text) > 0);
  int path = openat(sub, "secret", O_PATH);
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", path);
  fd = open(link, O_RDONLY);
  attempt("read what is hidden through O_PATH", fd >= 0 && read(fd, text, sizeof text) > 0);
  DIR* list = opendir(in(work, "sub/secrets"));
  int entries = 0;
  for (struct dirent* d; list && (d = readdir(list));) entries += d->d_name[0] != '.';
  attempt("list the hidden directory", entries > 0);
}

static void inherited(void) {
  for (int fd = 0; fd < 1024; fd++) {
    struct stat st;
    if (fstat(fd, &st) != 0) continue;
    if (S_ISDIR(st.st_mode)) attempt("a directory was inherited", faccessat(fd, ".", W_OK, 0) == 0);
    if (fd > 2) attempt("a descriptor was inherited", 1);
  }
}

int main(int argc, char** argv) {
  if (argc < 3) return 2;
  seen = argv[1], work = argv[2], file = in(seen, "file"), ours = in(work, "ours");
  inherited();
  int fd = open(ours, O_CREAT | O_RDWR | O_TRUNC, 0600);
  if (fd < 0 || write(fd, "ours", 4) != 4) return 3;  /* writable it is */
  close(fd);
  write_by_name();
  fd = open(file, O_RDONLY);
  if (fd < 0) return 3;
  write_by_descriptor(fd, "a file");
  write_by_descriptor(0, "standard input");
  fd = open(file, O_PATH);
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  must_not_open("reopen O_PATH", open(link, O_RDWR));
  write_by_handle();
  race();
  change_mounts();
  use_init();
  read_hidden();
  move_names();
  read_hidden();
  if (argc > 3) {
    DIR* list = opendir(argv[3]);
    int entries = 0;
    for (struct dirent* d; list && (d = readdir(list));) entries += d->d_name[0] != '.';
    attempt("see the control sockets of pods", entries > 0);
  }
  make_namespaces();
  use_rights();
  dprintf(1, "DONE\n");
  return 0;
}
