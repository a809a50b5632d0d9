// The seed: the process from which an engine grows a rebuilt pod's tree. It is a child of init that holds
// nothing but the agent's memory, the new standard streams and its capabilities; everything else is done to
// it from outside (checkpoint/rebuild).
#pragma once

#include <sys/types.h>

#include <cstdint>

#include "interpose/filter.h"

namespace virt::init {

struct SeedPlan {
  uint64_t region = 0, size = 0;  // where the agent lives: free in every process that is to be rebuilt
  pid_t pid = 0;                  // its pid in the pod
  int commit = -1;                // the shared word: a memfd of one page
  bool filtered = false;          // it inherits the pod's filter
  bool isolated = false;          // its streams are opened anew (init/streams.h)
  Sockets sockets = Sockets::kAny;
  int stdio[3] = {0, 1, 2};
};

// Its pid, or -errno. It is ready (parked) when this returns. `own_program` is a descriptor of virt-init's file: the seed
// executes it again, so that its memory, and that of all that grows from it, belongs to the pod's user namespace, and
// those who own that may look into it even where it is undumpable (ptrace(2), user_namespaces(7)).
pid_t grow_seed(const SeedPlan& plan, int own_program);

// main() of that program: virt-init seed REGION SIZE COMMIT_FD REPORT_FD FILTERED SEPARATED.
inline constexpr const char* kSeedArgument = "seed";
int run_seed(char** arguments);

// In PID 1, once a program runs: 0, 1, 2 become /dev/null, so that nobody waits for our ends of a pipe.
void forget_launcher_streams();

}  // namespace virt::init
