#include "interpose/filter.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>

namespace virt {
namespace {

constexpr unsigned kIoUringSetup = 425;  // the same number on every architecture

sock_filter statement(unsigned short code, unsigned value) { return {code, 0, 0, value}; }
sock_filter jump(unsigned short code, unsigned value, unsigned char yes, unsigned char no) {
  return {code, yes, no, value};
}

}  // namespace

int install_filter() {
  sock_filter program[] = {
      statement(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      jump(BPF_JMP | BPF_JEQ | BPF_K, kIoUringSetup, 0, 1),
      statement(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
      statement(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const sock_fprog prog{sizeof program / sizeof program[0], program};
  return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &prog) == 0 ? 0 : errno;
}

}  // namespace virt
