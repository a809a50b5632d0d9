// A TCP connection that is to say and hear nothing while its state goes to another host: what comes is dropped unseen
// (SO_ATTACH_FILTER), its timers do not end it, and in repair mode (TCP_REPAIR) its end is not told to the peer. What it had sent
// and is not acknowledged the kernel repeats all the same, ever more rarely. No exceptions: virt-init uses this too.
#pragma once

#include <cstdint>

namespace virt {

// Options that silence changes: what they are to be again.
struct SpokenOptions {
  uint32_t reuse_address = 0, keep_alive = 0, user_timeout_ms = 0;
};

// All of these give 0 or errno.
int spoken_options(int fd, SpokenOptions* options);
// What comes is dropped from here on, though what came before may still be under way in the kernel (membarrier(2)). Needs no
// privilege.
int silence(int fd);
// Closing it will be silent too. CAP_NET_ADMIN over its network namespace; SO_REUSEADDR is lost.
int close_silently(int fd);
// It hears and speaks again, and if it was in repair mode asks its peer how things stand (a window probe).
int end_silence(int fd, const SpokenOptions& options);
// Switches repair mode off, if it is on, so that nobody hears of it.
int leave_repair(int fd);

}  // namespace virt
