// A handle: one open file description that one or more fds of the pod refer to. Found by the survey,
// recognised and captured by its kind (one file per kind in this folder), written into the image, rebuilt by
// the same kind.
#pragma once

#include <sys/stat.h>
#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/value.h"
#include "sys/fd.h"
#include "sys/proc.h"

namespace virt {

struct Kind;

// As what a holder counts it. repair: its state goes along (tcp_repair.h).
enum class HeldAs : uint32_t { connection = 0, listener = 1, datagram = 2, inside = 3, repair = 4 };

struct HandleUse {
  int pid = 0, fd = 0;  // as the program sees them
  bool close_on_exec = false;
};

struct Handle {
  int id = 0;
  const Kind* kind = nullptr;
  std::vector<HandleUse> uses;
  pid_t host_pid = 0;  // where it was first seen
  int host_fd = -1;
  UniqueFd dup;  // the very description, in our table
  struct stat st {};
  std::string link;     // what /proc/PID/fd/N points to
  ProcFields info{""};  // fdinfo
  int flags = 0;        // open flags without O_CLOEXEC
  int64_t position = 0;
  Value record;                // what goes into the image, made by the kind
  std::optional<HeldAs> held;  // the pod's init keeps it when the pod is detached

  [[nodiscard]] int access() const { return flags & 3; }  // O_RDONLY, O_WRONLY, O_RDWR
};

class CaptureContext;
class RebuildContext;

// A kind of handle. `recognise` must not throw; `capture` reads everything without changing anything and
// reports what it cannot carry as blockers; `rebuild` makes it in the seed (RebuildContext) and gives its fd
// there.
struct Kind {
  const char* name;
  bool (*recognise)(const Handle& handle, const CaptureContext& context);
  void (*capture)(Handle& handle, CaptureContext& context);
  int (*rebuild)(const Value& record, RebuildContext& context);
};

}  // namespace virt
