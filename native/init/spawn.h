// Starting a program inside the pod: the child's side of fork.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "interpose/filter.h"

namespace virt::init {

struct Program {
  bool filtered = false;  // it inherits the pod's filter
  bool isolated =
      false;  // its streams are opened anew, and it gets fewer rights (init/streams.h, init/rights.h)
  Sockets sockets = Sockets::kAny;
  std::string cwd;
  std::vector<std::string> argv, env;
  int stdio[3] = {-1, -1, -1};  // what becomes 0, 1, 2
  uint64_t open_files = 0;      // soft limit of open files; 0: as init has it
  bool terminal = false;        // they are a pty's slave: make it the controlling terminal
};

// Forks and execs. The new process leads a session and a process group of its own. *error is 0, or the errno
// of what failed in the child (ENOENT: not found, EACCES: not executable, …; negative: of entering cwd), and
// then there is no child. EXDEV: an isolated pod does not see a file it was given as a stream.
pid_t spawn(const Program& program, int* error);

// The step that has failed where that errno is negative.
inline constexpr const char* kEnteringDirectory = "entering the working directory";

}  // namespace virt::init
