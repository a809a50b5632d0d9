// A direction of a connection as it lies in memory: bytes and marks between two offsets, in order. The sender's tape holds
// what is not acknowledged, the receiver's what the socket has not yet taken. Every mark is one byte of the stream, so one
// offset tells all of what has arrived. Memory is taken as it is needed. Not thread-safe; no exceptions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "sys/wire.h"

namespace virt::relay {

// none: plain bytes. urgent: the byte is TCP's urgent one. fin: no more comes. reset: the connection is no more, and the
// byte says with which errno. gone: the peer has closed both ways without an error (unix sockets tell).
enum class Mark : uint8_t { none, urgent, fin, reset, gone };

class Tape {
 public:
  struct Run {
    const char* data;
    size_t size;
    Mark mark;
  };

  [[nodiscard]] uint64_t begin() const { return begin_; }
  [[nodiscard]] uint64_t end() const { return begin_ + size_; }
  [[nodiscard]] size_t size() const { return size_; }
  // Where up to `most` bytes can be put behind the end; commit() says how many were. `*size` is at least 1.
  char* room(size_t most, size_t* size);
  void commit(size_t size);
  void append(const char* data, size_t size);
  void append_mark(Mark mark, uint8_t byte);
  // Bytes of one kind from `from` on, as they lie together. Marks one by one. Nothing at the end.
  [[nodiscard]] Run run(uint64_t from, size_t most) const;
  // Forgets what is before `offset`, which is not before begin() and not behind end().
  void drop_to(uint64_t offset);
  // Goes on, empty, at `offset`.
  void restart(uint64_t offset);
  // There is memory and nothing in it.
  [[nodiscard]] bool is_idle() const { return size_ == 0 && capacity_ != 0; }
  // It ends with fin, reset or gone.
  [[nodiscard]] bool is_ended() const {
    return !marks_.empty() && marks_.back().mark >= Mark::fin && marks_.back().offset + 1 == end();
  }
  // Gives memory back if there is nothing in it.
  void release();

  void encode(wire::Writer* out) const;
  // False if the bytes are no tape, or of one with more than `most` bytes.
  bool decode(wire::Reader* in, size_t most);

 private:
  struct Marked {
    uint64_t offset;
    Mark mark;
  };
  void grow(size_t least);

  std::unique_ptr<char[]> bytes_;  // a ring
  size_t capacity_ = 0;            // a power of two, or 0
  size_t size_ = 0;
  uint64_t begin_ = 0;
  std::vector<Marked> marks_;
  size_t offered_ = 0;
  bool was_filled_ = false;
};

}  // namespace virt::relay
