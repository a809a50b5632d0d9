// What of a pod's side effects is recorded, and which calls that takes.
#pragma once

#include <cstdint>

#include "interpose/calls.h"

namespace virt {

enum class Recording : uint32_t {
  kNone = 0,     // nothing
  kDefault = 1,  // what changes the world outside: files, addresses, programs
  kAll = 2,      // also what is only looked at: files opened for reading, stat(2) and the like, signals sent
};

constexpr KindSet recorded_kinds(Recording recording) {
  if (recording == Recording::kNone) return 0;
  constexpr KindSet kChanges =
      kind_bit(CallKind::open) | kind_bit(CallKind::remove) | kind_bit(CallKind::rename) |
      kind_bit(CallKind::make) | kind_bit(CallKind::link) | kind_bit(CallKind::mode) |
      kind_bit(CallKind::owner) | kind_bit(CallKind::truncate) | kind_bit(CallKind::bind) |
      kind_bit(CallKind::connect) | kind_bit(CallKind::listen) | kind_bit(CallKind::send) |
      kind_bit(CallKind::execute) | kind_bit(CallKind::root);
  if (recording == Recording::kDefault) return kChanges;
  return kChanges | kind_bit(CallKind::read) | kind_bit(CallKind::look) | kind_bit(CallKind::kill);
}

}  // namespace virt
