#include "interpose/calls.h"

#include <fcntl.h>
#include <sys/syscall.h>

#include <algorithm>
#include <array>

namespace virt {
namespace {

constexpr uint32_t kWrites = O_WRONLY | O_RDWR | O_CREAT | O_TRUNC;
constexpr uint32_t kFchmodat2 = 452;  // Linux 6.6; Debian 12's headers are older
using K = CallKind;
using W = When;

constexpr std::array kCalls{
    RecordedCall{SYS_open, "open", K::open, W::flags, 1, kWrites, -1, 0, -1, -1, -1, 1},
    RecordedCall{SYS_openat, "openat", K::open, W::flags, 2, kWrites, 0, 1, -1, -1, -1, 2},
    RecordedCall{SYS_creat, "creat", K::open, W::always, -1, 0, -1, 0},
    RecordedCall{SYS_openat2, "openat2", K::open, W::always, -1, 0, 0, 1, -1, -1, -1, 2},  // flags in memory
    RecordedCall{SYS_unlink, "unlink", K::remove, W::always, -1, 0, -1, 0},
    RecordedCall{SYS_unlinkat, "unlinkat", K::remove, W::always, -1, 0, 0, 1},
    RecordedCall{SYS_rmdir, "rmdir", K::remove, W::always, -1, 0, -1, 0},
    RecordedCall{SYS_rename, "rename", K::rename, W::always, -1, 0, -1, 0, -1, 1},
    RecordedCall{SYS_renameat, "renameat", K::rename, W::always, -1, 0, 0, 1, 2, 3},
    RecordedCall{SYS_renameat2, "renameat2", K::rename, W::always, -1, 0, 0, 1, 2, 3, -1, 4},
    RecordedCall{SYS_link, "link", K::make, W::always, -1, 0, -1, 1},
    RecordedCall{SYS_linkat, "linkat", K::make, W::always, -1, 0, 2, 3},
    RecordedCall{SYS_symlink, "symlink", K::make, W::always, -1, 0, -1, 1},
    RecordedCall{SYS_symlinkat, "symlinkat", K::make, W::always, -1, 0, 1, 2},
    RecordedCall{SYS_mkdir, "mkdir", K::make, W::always, -1, 0, -1, 0},
    RecordedCall{SYS_mkdirat, "mkdirat", K::make, W::always, -1, 0, 0, 1},
    RecordedCall{SYS_mknod, "mknod", K::make, W::always, -1, 0, -1, 0},
    RecordedCall{SYS_mknodat, "mknodat", K::make, W::always, -1, 0, 0, 1},
    RecordedCall{SYS_chmod, "chmod", K::mode, W::always, -1, 0, -1, 0, -1, -1, -1, -1, 1},
    RecordedCall{SYS_fchmod, "fchmod", K::mode, W::always, -1, 0, -1, -1, -1, -1, 0, -1, 1},
    RecordedCall{SYS_fchmodat, "fchmodat", K::mode, W::always, -1, 0, 0, 1, -1, -1, -1, -1, 2},
    RecordedCall{kFchmodat2, "fchmodat2", K::mode, W::always, -1, 0, 0, 1, -1, -1, -1, 3, 2},
    RecordedCall{SYS_chown, "chown", K::owner, W::always, -1, 0, -1, 0, -1, -1, -1, -1, 1},
    RecordedCall{SYS_lchown, "lchown", K::owner, W::always, -1, 0, -1, 0, -1, -1, -1, -1, 1},
    RecordedCall{SYS_fchown, "fchown", K::owner, W::always, -1, 0, -1, -1, -1, -1, 0, -1, 1},
    RecordedCall{SYS_fchownat, "fchownat", K::owner, W::always, -1, 0, 0, 1, -1, -1, -1, 4, 2},
    RecordedCall{SYS_truncate, "truncate", K::truncate, W::always, -1, 0, -1, 0, -1, -1, -1, -1, 1},
    RecordedCall{SYS_ftruncate, "ftruncate", K::truncate, W::always, -1, 0, -1, -1, -1, -1, 0, -1, 1},
    RecordedCall{SYS_bind, "bind", K::bind, W::always, -1, 0, -1, -1, -1, -1, 0, -1, 1},
    RecordedCall{SYS_connect, "connect", K::connect, W::always, -1, 0, -1, -1, -1, -1, 0, -1, 1},
    RecordedCall{SYS_listen, "listen", K::listen, W::always, -1, 0, -1, -1, -1, -1, 0},
    RecordedCall{SYS_sendto, "sendto", K::send, W::not_null, 4, 0, -1, -1, -1, -1, 0, -1, 4},
    RecordedCall{SYS_chroot, "chroot", K::root},
    RecordedCall{SYS_execve, "execve", K::execute, W::always, -1, 0, -1, 0},
    RecordedCall{SYS_execveat, "execveat", K::execute, W::always, -1, 0, 0, 1, -1, -1, -1, 4},
};

}  // namespace

std::span<const RecordedCall> recorded_calls() { return kCalls; }

const RecordedCall* recorded_call(uint32_t number) {
  const auto* found = std::find_if(kCalls.begin(), kCalls.end(),
                                   [number](const RecordedCall& call) { return call.number == number; });
  return found == kCalls.end() ? nullptr : found;
}

}  // namespace virt
