// Reading and writing another process's memory. Needs the right to ptrace it, not the tracing thread: readers
// may run on any thread of ours. process_vm_readv(2) is fast but honours protections; what it cannot reach
// (PROT_NONE, write-only) goes through /proc/PID/mem, which does not.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>

#include "sys/fd.h"
#include "trace/thread.h"

namespace virt {

class RemoteMemory {
 public:
  explicit RemoteMemory(pid_t host_pid);

  // Bytes read before the first unreadable page; throws only if the process is gone.
  size_t try_read(RemoteAddress from, void* to, size_t size) const;
  void read(RemoteAddress from, void* to, size_t size) const;
  // A C string of at most `limit` bytes.
  [[nodiscard]] std::string read_string(RemoteAddress from, size_t limit) const;
  void write(RemoteAddress to, const void* from, size_t size) const;

  template <typename T>
  [[nodiscard]] T read_object(RemoteAddress from) const {
    T object{};
    read(from, &object, sizeof object);
    return object;
  }

 private:
  pid_t pid_;
  UniqueFd mem_;
};

}  // namespace virt
