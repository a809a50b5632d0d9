// Bytes and file descriptors over a unix stream socket (unix(7), SCM_RIGHTS). No exceptions: used on both
// sides of the control socket, in virt-init as well.
#pragma once

#include <sys/types.h>

#include <cstddef>

#include "sys/fd.h"

namespace virt {

// The kernel passes at most 253 descriptors in one message (unix(7)).
inline constexpr size_t kMaxPassedFds = 200;

// Sends all of `data`, the fds riding on its first byte. 0, or -errno. Blocks; never raises SIGPIPE.
int send_with_fds(int socket, const void* data, size_t size, const int* fds, size_t fd_count);

// One recvmsg: up to `size` bytes and any fds that came with them (close-on-exec). Bytes read, 0 at the end
// of the stream, or -errno. `*fd_count` says how many of `fds` (room for kMaxPassedFds) were filled.
ssize_t receive_with_fds(int socket, void* data, size_t size, UniqueFd* fds, size_t* fd_count);

// Fills all of `data`. 0, -errno, or -EPIPE if the stream ended first.
int receive_all(int socket, void* data, size_t size, UniqueFd* fds, size_t* fd_count);

}  // namespace virt
