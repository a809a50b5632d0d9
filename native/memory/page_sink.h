// Where the pages of a PageStore go: into an image's files on this host (FileSink), or to another host (move/wire_sink.h).
#pragma once

#include <cstdint>
#include <mutex>
#include <vector>

#include "sys/fd.h"

namespace virt {

class PageSink {
 public:
  PageSink() = default;
  PageSink(const PageSink&) = delete;
  PageSink& operator=(const PageSink&) = delete;
  virtual ~PageSink() = default;

  // Parts come in order; called under a lock of the store.
  virtual void open_part(uint64_t part) = 0;
  // `count` pages with numbers from `first` on, all of one part, and their hashes (memory/page_hash.h). Parts are written by
  // several threads, one part by one thread in order.
  virtual void write(const char* const* pages, const uint64_t* hashes, size_t count, uint64_t first) = 0;
  // Whether the page that was written as number `index` has these bytes.
  virtual bool holds(const char* page, uint64_t index) = 0;
};

// pages-1.bin, … in a directory, which must be empty of them. What is written is read back and compared
// (ERR_IMAGE_DAMAGED).
class FileSink : public PageSink {
 public:
  explicit FileSink(int dir_fd) : dir_fd_(dir_fd) {}
  void open_part(uint64_t part) override;
  void write(const char* const* pages, const uint64_t* hashes, size_t count, uint64_t first) override;
  bool holds(const char* page, uint64_t index) override;

 private:
  int part_fd(uint64_t part);

  int dir_fd_;
  std::mutex lock_;
  std::vector<UniqueFd> parts_;
};

}  // namespace virt
