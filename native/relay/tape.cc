#include "relay/tape.h"

#include <algorithm>
#include <cstring>

namespace virt::relay {
namespace {

constexpr size_t kFirstBytes = 4 << 10;

}  // namespace

// An offset's place in the ring is the offset itself, modulo the capacity.
void Tape::grow(size_t least) {
  size_t capacity = std::max(capacity_ * 4, kFirstBytes);
  while (capacity < least) capacity *= 2;
  std::unique_ptr<char[]> bytes(new char[capacity]);
  for (uint64_t at = begin_; at < end();) {
    const size_t from = at & (capacity_ - 1), to = at & (capacity - 1);
    const size_t n = std::min({static_cast<size_t>(end() - at), capacity_ - from, capacity - to});
    std::memcpy(bytes.get() + to, bytes_.get() + from, n);
    at += n;
  }
  bytes_ = std::move(bytes);
  capacity_ = capacity;
}

char* Tape::room(size_t most, size_t* size) {
  if (size_ == capacity_ || (was_filled_ && capacity_ - size_ < most)) grow(size_ + 1);
  const size_t at = end() & (capacity_ - 1);
  *size = std::min({most, capacity_ - size_, capacity_ - at});
  was_filled_ = false;
  offered_ = *size;
  return bytes_.get() + at;
}

void Tape::commit(size_t size) {
  size_ += size;
  // Whoever fills what is offered will want more the next time; a little left before the ring's end says nothing.
  was_filled_ = size == offered_ && offered_ >= capacity_ / 4;
}

void Tape::append(const char* data, size_t size) {
  if (capacity_ - size_ < size) grow(size_ + size);
  while (size > 0) {
    const size_t at = end() & (capacity_ - 1);
    const size_t n = std::min(size, capacity_ - at);
    std::memcpy(bytes_.get() + at, data, n);
    data += n;
    size -= n;
    size_ += n;
  }
}

void Tape::append_mark(Mark mark, uint8_t byte) {
  const char c = static_cast<char>(byte);
  if (mark != Mark::none) marks_.push_back({end(), mark});
  append(&c, 1);
}

Tape::Run Tape::run(uint64_t from, size_t most) const {
  if (from >= end()) return {nullptr, 0, Mark::none};
  const size_t at = from & (capacity_ - 1);
  size_t size = std::min({static_cast<size_t>(end() - from), capacity_ - at, most});
  const auto mark = std::lower_bound(marks_.begin(), marks_.end(), from,
                                     [](const Marked& m, uint64_t offset) { return m.offset < offset; });
  if (mark != marks_.end()) {
    if (mark->offset == from) return {bytes_.get() + at, 1, mark->mark};
    size = std::min(size, static_cast<size_t>(mark->offset - from));
  }
  return {bytes_.get() + at, size, Mark::none};
}

void Tape::drop_to(uint64_t offset) {
  size_ -= static_cast<size_t>(offset - begin_);
  begin_ = offset;
  if (!marks_.empty()) std::erase_if(marks_, [offset](const Marked& m) { return m.offset < offset; });
}

void Tape::restart(uint64_t offset) {
  begin_ = offset;
  size_ = 0;
  marks_.clear();
  release();
}

void Tape::release() {
  if (size_ != 0) return;
  bytes_.reset();
  capacity_ = 0;
  was_filled_ = false;
  marks_.shrink_to_fit();
}

void Tape::encode(wire::Writer* out) const {
  out->number(begin_);
  std::string text;
  for (uint64_t at = begin_; at < end();) {
    const Run piece = run(at, size_);
    text.append(piece.data, piece.size);
    at += piece.size;
  }
  out->text(text);
  out->number(static_cast<uint32_t>(marks_.size()));
  for (const auto& m : marks_) {
    out->number(m.offset);
    out->number(m.mark);
  }
}

bool Tape::decode(wire::Reader* in, size_t most) {
  restart(in->number<uint64_t>());
  const std::string text = in->text();
  const auto count = in->number<uint32_t>();
  if (!in->ok() || text.size() > most || count > text.size() || begin_ > UINT64_MAX / 2) return false;
  if (!text.empty()) append(text.data(), text.size());
  for (uint32_t i = 0; i < count; ++i) {
    const auto offset = in->number<uint64_t>();
    const auto mark = in->number<Mark>();
    if (!in->ok() || offset < begin_ || offset >= end() || mark == Mark::none || mark > Mark::gone)
      return false;
    if (!marks_.empty() && marks_.back().offset >= offset) return false;
    marks_.push_back({offset, mark});
  }
  return true;
}

}  // namespace virt::relay
