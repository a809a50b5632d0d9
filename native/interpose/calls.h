// The calls that carry identifiers: which of them the kernel is to ask about, and where in their arguments the
// identifiers are.
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

// What a call does, as rules name it. Numbers are part of the protocol (src/rules/encode.ts).
enum class CallKind : uint8_t {
  open = 0,      // path, flags: for writing, or creating
  remove = 1,    // path
  rename = 2,    // path, path2
  make = 3,      // path: mkdir, mknod
  link = 4,      // path: link, symlink
  mode = 5,      // path or descriptor, mode
  owner = 6,     // path or descriptor, uid, gid
  truncate = 7,  // path or descriptor, length
  bind = 8,      // descriptor, address
  connect = 9,   // descriptor, address
  listen = 10,   // descriptor
  send = 11,     // descriptor, address
  execute = 12,  // path
  root = 13,     // no effect, but paths mean others after it
  read = 14,     // path, flags: an open for reading only
  look = 15,     // path: stat, access, readlink
  kill = 16,     // process, signal
  socket = 17,   // family, type
  name = 18,     // descriptor: getsockname, getpeername
  message = 19,  // descriptor; the address is in memory (sendmsg(2))
  kinds = 20,    // how many there are
};

// Several kinds, a bit for each.
using KindSet = uint32_t;
constexpr KindSet kind_bit(CallKind kind) { return KindSet{1} << static_cast<unsigned>(kind); }
constexpr KindSet kAllKinds = (KindSet{1} << static_cast<unsigned>(CallKind::kinds)) - 1;

// Numbers of arguments; -1: the call has none such.
struct InterposedCall {
  uint32_t number;
  const char* name;
  CallKind kind;
  When when = When::always;
  int8_t argument = -1;  // of `when`
  uint32_t mask = 0;
  int8_t directory = -1,
         path = -1;  // openat(2)'s way of naming a file; a path without directory: the working one
  int8_t directory2 = -1, path2 = -1;  // the second
  int8_t descriptor = -1;              // the file or socket itself; of a kill the process
  int8_t flags = -1;                   // AT_… or O_…; of a kill the signal
  int8_t value = -1;  // mode, uid (gid follows), length, address (its length follows), family (type follows)
};

std::span<const InterposedCall> interposed_calls();
// Null if it is none of them.
const InterposedCall* interposed_call(uint32_t number);

}  // namespace virt
