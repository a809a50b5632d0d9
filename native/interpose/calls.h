// The calls that carry identifiers and change something outside the pod: which of them the kernel asks about,
// and where in their arguments the identifiers are.
#pragma once

#include <cstdint>
#include <span>

namespace virt {

// When a call is asked about, by what BPF can see of it.
enum class When : uint8_t {
  always,
  flags,     // a bit of `mask` is set in the argument
  not_null,  // the argument is not 0
};

enum class CallKind : uint8_t {
  open,      // path, flags: for writing, or creating
  remove,    // path
  rename,    // path, path2
  make,      // path: link, symlink, mkdir, mknod
  mode,      // path or descriptor, mode
  owner,     // path or descriptor, uid, gid
  truncate,  // path or descriptor, length
  bind,      // descriptor, address
  connect,   // descriptor, address
  listen,    // descriptor
  send,      // descriptor, address
  execute,   // path
  root,      // no effect, but paths mean others after it
};

// Numbers of arguments; -1: the call has none such.
struct RecordedCall {
  uint32_t number;
  const char* name;
  CallKind kind;
  When when = When::always;
  int8_t argument = -1;  // of `when`
  uint32_t mask = 0;
  int8_t directory = -1,
         path = -1;  // openat(2)'s way of naming a file; a path without directory: the working one
  int8_t directory2 = -1, path2 = -1;  // the second
  int8_t descriptor = -1;              // the file or socket itself
  int8_t flags = -1;                   // AT_… or O_…
  int8_t value = -1;                   // mode, uid (gid follows), length, address (its length follows)
};

std::span<const RecordedCall> recorded_calls();
// Null if it is none of them.
const RecordedCall* recorded_call(uint32_t number);

}  // namespace virt
