#include "interpose/calls.h"

#include <fcntl.h>
#include <sys/syscall.h>

#include <algorithm>
#include <array>

namespace virt {
namespace {

constexpr uint32_t kWrites = O_WRONLY | O_RDWR | O_CREAT | O_TRUNC;
constexpr uint32_t kFaccessat2 = 439, kFchmodat2 = 452;  // Linux 5.8 and 6.6; headers may be older
using K = CallKind;
using W = When;

constexpr std::array kCalls{
    InterposedCall{SYS_open, "open", K::open, W::flags, 1, kWrites, -1, 0, -1, -1, -1, 1},
    InterposedCall{SYS_openat, "openat", K::open, W::flags, 2, kWrites, 0, 1, -1, -1, -1, 2},
    InterposedCall{SYS_creat, "creat", K::open, W::always, -1, 0, -1, 0},
    InterposedCall{SYS_openat2, "openat2", K::open, W::always, -1, 0, 0, 1, -1, -1, -1,
                   2},  // flags in memory
    InterposedCall{SYS_unlink, "unlink", K::remove, W::always, -1, 0, -1, 0},
    InterposedCall{SYS_unlinkat, "unlinkat", K::remove, W::always, -1, 0, 0, 1},
    InterposedCall{SYS_rmdir, "rmdir", K::remove, W::always, -1, 0, -1, 0},
    InterposedCall{SYS_rename, "rename", K::rename, W::always, -1, 0, -1, 0, -1, 1},
    InterposedCall{SYS_renameat, "renameat", K::rename, W::always, -1, 0, 0, 1, 2, 3},
    InterposedCall{SYS_renameat2, "renameat2", K::rename, W::always, -1, 0, 0, 1, 2, 3, -1, 4},
    InterposedCall{SYS_link, "link", K::link, W::always, -1, 0, -1, 1},
    InterposedCall{SYS_linkat, "linkat", K::link, W::always, -1, 0, 2, 3},
    InterposedCall{SYS_symlink, "symlink", K::link, W::always, -1, 0, -1, 1},
    InterposedCall{SYS_symlinkat, "symlinkat", K::link, W::always, -1, 0, 1, 2},
    InterposedCall{SYS_mkdir, "mkdir", K::make, W::always, -1, 0, -1, 0},
    InterposedCall{SYS_mkdirat, "mkdirat", K::make, W::always, -1, 0, 0, 1},
    InterposedCall{SYS_mknod, "mknod", K::make, W::always, -1, 0, -1, 0},
    InterposedCall{SYS_mknodat, "mknodat", K::make, W::always, -1, 0, 0, 1},
    InterposedCall{SYS_chmod, "chmod", K::mode, W::always, -1, 0, -1, 0, -1, -1, -1, -1, 1},
    InterposedCall{SYS_fchmod, "fchmod", K::mode, W::always, -1, 0, -1, -1, -1, -1, 0, -1, 1},
    InterposedCall{SYS_fchmodat, "fchmodat", K::mode, W::always, -1, 0, 0, 1, -1, -1, -1, -1, 2},
    InterposedCall{kFchmodat2, "fchmodat2", K::mode, W::always, -1, 0, 0, 1, -1, -1, -1, 3, 2},
    InterposedCall{SYS_chown, "chown", K::owner, W::always, -1, 0, -1, 0, -1, -1, -1, -1, 1},
    InterposedCall{SYS_lchown, "lchown", K::owner, W::always, -1, 0, -1, 0, -1, -1, -1, -1, 1},
    InterposedCall{SYS_fchown, "fchown", K::owner, W::always, -1, 0, -1, -1, -1, -1, 0, -1, 1},
    InterposedCall{SYS_fchownat, "fchownat", K::owner, W::always, -1, 0, 0, 1, -1, -1, -1, 4, 2},
    InterposedCall{SYS_truncate, "truncate", K::truncate, W::always, -1, 0, -1, 0, -1, -1, -1, -1, 1},
    InterposedCall{SYS_ftruncate, "ftruncate", K::truncate, W::always, -1, 0, -1, -1, -1, -1, 0, -1, 1},
    InterposedCall{SYS_bind, "bind", K::bind, W::always, -1, 0, -1, -1, -1, -1, 0, -1, 1},
    InterposedCall{SYS_connect, "connect", K::connect, W::always, -1, 0, -1, -1, -1, -1, 0, -1, 1},
    InterposedCall{SYS_listen, "listen", K::listen, W::always, -1, 0, -1, -1, -1, -1, 0},
    InterposedCall{SYS_sendto, "sendto", K::send, W::not_null, 4, 0, -1, -1, -1, -1, 0, -1, 4},
    InterposedCall{SYS_chroot, "chroot", K::root},
    InterposedCall{SYS_execve, "execve", K::execute, W::always, -1, 0, -1, 0},
    InterposedCall{SYS_execveat, "execveat", K::execute, W::always, -1, 0, 0, 1, -1, -1, -1, 4},
    InterposedCall{SYS_stat, "stat", K::look, W::always, -1, 0, -1, 0},
    InterposedCall{SYS_lstat, "lstat", K::look, W::always, -1, 0, -1, 0},
    InterposedCall{SYS_newfstatat, "newfstatat", K::look, W::always, -1, 0, 0, 1, -1, -1, -1, 3},
    InterposedCall{SYS_statx, "statx", K::look, W::always, -1, 0, 0, 1, -1, -1, -1, 2},
    InterposedCall{SYS_access, "access", K::look, W::always, -1, 0, -1, 0},
    InterposedCall{SYS_faccessat, "faccessat", K::look, W::always, -1, 0, 0, 1},
    InterposedCall{kFaccessat2, "faccessat2", K::look, W::always, -1, 0, 0, 1, -1, -1, -1, 3},
    InterposedCall{SYS_readlink, "readlink", K::look, W::always, -1, 0, -1, 0},
    InterposedCall{SYS_readlinkat, "readlinkat", K::look, W::always, -1, 0, 0, 1},
    InterposedCall{SYS_sendmsg, "sendmsg", K::message, W::always, -1, 0, -1, -1, -1, -1, 0},
    InterposedCall{SYS_kill, "kill", K::kill, W::always, -1, 0, -1, -1, -1, -1, 0, 1},
    InterposedCall{SYS_tkill, "tkill", K::kill, W::always, -1, 0, -1, -1, -1, -1, 0, 1},
    InterposedCall{SYS_tgkill, "tgkill", K::kill, W::always, -1, 0, -1, -1, -1, -1, 0, 2},
    InterposedCall{SYS_rt_sigqueueinfo, "rt_sigqueueinfo", K::kill, W::always, -1, 0, -1, -1, -1, -1, 0, 1},
    InterposedCall{SYS_rt_tgsigqueueinfo, "rt_tgsigqueueinfo", K::kill, W::always, -1, 0, -1, -1, -1, -1, 0,
                   2},
    InterposedCall{SYS_socket, "socket", K::socket, W::always, -1, 0, -1, -1, -1, -1, -1, -1, 0},
    InterposedCall{SYS_getsockname, "getsockname", K::name, W::always, -1, 0, -1, -1, -1, -1, 0},
    InterposedCall{SYS_getpeername, "getpeername", K::name, W::always, -1, 0, -1, -1, -1, -1, 0},
};

}  // namespace

std::span<const InterposedCall> interposed_calls() { return kCalls; }

const InterposedCall* interposed_call(uint32_t number) {
  const auto* found = std::find_if(kCalls.begin(), kCalls.end(),
                                   [number](const InterposedCall& call) { return call.number == number; });
  return found == kCalls.end() ? nullptr : found;
}

}  // namespace virt
