#include "interpose/filter.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <vector>

#include "interpose/calls.h"

namespace virt {
namespace {

constexpr unsigned kIoUringSetup = 425;  // the same number on every architecture

sock_filter statement(unsigned short code, unsigned value) { return {code, 0, 0, value}; }
sock_filter jump(unsigned short code, unsigned value, unsigned char yes, unsigned char no) {
  return {code, yes, no, value};
}

// Halves of argument n; the machine is little-endian.
unsigned low(int n) {
  return static_cast<unsigned>(offsetof(seccomp_data, args) + static_cast<size_t>(n) * 8);
}
unsigned high(int n) { return low(n) + 4; }

// Of an open(2) that is selected for reading too, all are.
When when_selected(const InterposedCall& call, KindSet selected) {
  const bool reads = call.kind == CallKind::open && (selected & kind_bit(CallKind::read)) != 0;
  return reads ? When::always : call.when;
}

bool is_selected(const InterposedCall& call, KindSet selected) {
  const KindSet kinds =
      kind_bit(call.kind) | (call.kind == CallKind::open ? kind_bit(CallKind::read) : KindSet{0});
  return (kinds & selected) != 0;
}

void add_call(std::vector<sock_filter>* program, const InterposedCall& call, When when) {
  std::vector<sock_filter> body;
  switch (when) {
    case When::always:
      body = {statement(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF)};
      break;
    case When::flags:
      body = {statement(BPF_LD | BPF_W | BPF_ABS, low(call.argument)),
              jump(BPF_JMP | BPF_JSET | BPF_K, call.mask, 0, 1),
              statement(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
              statement(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
      break;
    case When::not_null:
      body = {statement(BPF_LD | BPF_W | BPF_ABS, low(call.argument)),
              jump(BPF_JMP | BPF_JEQ | BPF_K, 0, 0, 2),
              statement(BPF_LD | BPF_W | BPF_ABS, high(call.argument)),
              jump(BPF_JMP | BPF_JEQ | BPF_K, 0, 1, 0),
              statement(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
              statement(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
      break;
  }
  program->push_back(
      jump(BPF_JMP | BPF_JEQ | BPF_K, call.number, 0, static_cast<unsigned char>(body.size())));
  program->insert(program->end(), body.begin(), body.end());
}

// Calls by other numbers than this architecture's (32-bit programs, x32) would pass by: there are none.
void add_architecture(std::vector<sock_filter>* program) {
  constexpr unsigned kX32Bit = 0x40000000;
  const std::vector<sock_filter> body{
      statement(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, arch)),
      jump(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0),
      statement(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
      statement(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      jump(BPF_JMP | BPF_JGE | BPF_K, kX32Bit, 0, 1),
      statement(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
  };
  program->insert(program->end(), body.begin(), body.end());
}

// Others know all of the machine (vsock(7) speaks to the hypervisor), or may learn to.
void add_sockets(std::vector<sock_filter>* program) {
  const std::vector<sock_filter> body{
      jump(BPF_JMP | BPF_JEQ | BPF_K, SYS_socket, 0, 7),
      statement(BPF_LD | BPF_W | BPF_ABS, low(0)),
      jump(BPF_JMP | BPF_JEQ | BPF_K, AF_UNIX, 5, 0),
      jump(BPF_JMP | BPF_JEQ | BPF_K, AF_INET, 4, 0),
      jump(BPF_JMP | BPF_JEQ | BPF_K, AF_INET6, 3, 0),
      jump(BPF_JMP | BPF_JEQ | BPF_K, AF_NETLINK, 2, 0),
      jump(BPF_JMP | BPF_JEQ | BPF_K, AF_PACKET, 1, 0),
      statement(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EAFNOSUPPORT),
      statement(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
  };
  program->insert(program->end(), body.begin(), body.end());
}

}  // namespace

int install_filter(KindSet selected, Sockets sockets, UniqueFd* listener) {
  std::vector<sock_filter> program;
  if (selected != 0 || sockets == Sockets::kSeparated) add_architecture(&program);
  program.push_back(statement(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)));
  program.push_back(jump(BPF_JMP | BPF_JEQ | BPF_K, kIoUringSetup, 0, 1));
  program.push_back(statement(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS));
  if (sockets == Sockets::kSeparated) add_sockets(&program);
  for (const InterposedCall& call : interposed_calls()) {
    if (is_selected(call, selected)) add_call(&program, call, when_selected(call, selected));
  }
  program.push_back(statement(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
  const sock_fprog prog{static_cast<unsigned short>(program.size()), program.data()};
  const unsigned flags = selected == 0 ? 0 : SECCOMP_FILTER_FLAG_NEW_LISTENER;
  const long made = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &prog);
  if (made < 0) return errno;
  if (selected != 0) listener->reset(static_cast<int>(made));
  return 0;
}

}  // namespace virt
