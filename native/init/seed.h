// The seed: the process from which an engine grows a rebuilt pod's tree. It is a child of init that holds
// nothing but the agent's memory, the new standard streams and its capabilities; everything else is done to
// it from outside (checkpoint/rebuild).
#pragma once

#include <sys/types.h>

#include <cstdint>

namespace virt::init {

struct SeedPlan {
  uint64_t region = 0, size = 0;  // where the agent lives: free in every process that is to be rebuilt
  pid_t pid = 0;                  // its pid in the pod
  void* commit = nullptr;         // the shared word, moved into the region
  int stdio[3] = {0, 1, 2};
};

// Its pid, or -errno. It is ready (parked) when this returns.
pid_t grow_seed(const SeedPlan& plan);

// In PID 1, once a program runs: 0, 1, 2 become /dev/null, so that nobody waits for our ends of a pipe.
void forget_launcher_streams();

}  // namespace virt::init
