#include "move/wire_sink.h"

#include "memory/page_hash.h"
#include "memory/page_store.h"

namespace virt {

void WireSink::open_part(uint64_t /*part*/) {
  const std::lock_guard guard(lock_);
  second_.emplace_back();
}

void WireSink::write(const char* const* pages, const uint64_t* hashes, size_t count, uint64_t first) {
  std::vector<uint64_t> second(count);
  for (size_t i = 0; i < count; ++i) second[i] = keyed_page_hash(pages[i], key_);
  {
    const std::lock_guard guard(lock_);
    auto& part = second_.at(first / kPartPages);
    part.insert(part.end(), second.begin(), second.end());
  }
  wire_->send_pages(pages, hashes, count, first);
}

bool WireSink::holds(const char* page, uint64_t index) {
  const uint64_t hash = keyed_page_hash(page, key_);
  const std::lock_guard guard(lock_);
  return second_.at(index / kPartPages).at(index % kPartPages) == hash;
}

}  // namespace virt
