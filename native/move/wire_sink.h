// The pages of a capture on their way to another host: a PageStore's sink over a Wire.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "memory/page_sink.h"
#include "move/wire.h"

namespace virt {

class WireSink : public PageSink {
 public:
  // `key`: what nobody else knows, so that no program can make two pages that are taken for equal.
  WireSink(std::shared_ptr<Wire> wire, uint64_t key) : wire_(std::move(wire)), key_(key) {}
  void open_part(uint64_t part) override;
  void write(const char* const* pages, const uint64_t* hashes, size_t count, uint64_t first) override;
  // By a second hash, under the key: what was sent is not here any more. With the first that is 128 bits.
  bool holds(const char* page, uint64_t index) override;

 private:
  std::shared_ptr<Wire> wire_;
  const uint64_t key_;
  std::mutex lock_;
  std::vector<std::vector<uint64_t>> second_;  // part → second hashes of its pages
};

}  // namespace virt
