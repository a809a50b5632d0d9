// The pages of an image: parts of equal size (`pages-1.bin`, …), raw and page-aligned, each page stored once,
// and one 64-bit hash a page (`pages.sum`). PageStore writes them, PageFile reads them. Both may be used by
// several threads at once.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "memory/page_sink.h"
#include "memory/scan.h"
#include "sys/fd.h"

namespace virt {

inline constexpr uint64_t kPartPages = 16384;  // 64 MiB a part

std::string part_name(uint64_t part);

// `count` pages from address (or offset) `start` are the stored pages `index`, `index` + 1, …
struct PageRun {
  uint64_t start = 0, count = 0, index = 0;
  bool huge = false;
};

enum class Zeros : uint8_t { leave_out, keep, mark };
inline constexpr uint64_t kZeroPages = uint64_t{1} << 62;

class PageStore {
 public:
  explicit PageStore(std::unique_ptr<PageSink> sink);
  ~PageStore();

  // Where one thread writes: a part of its own, because writers of one file wait for each other in the
  // kernel.
  class Lane {
   private:
    friend class PageStore;
    uint64_t part = 0, used = kPartPages;
  };

  // Stores `count` pages that lie at `pages` and belong at `start`: known ones are referred to, zero ones left out, kept like
  // others, or marked (their number is kZeroPages, whose content is in no part). Appends to *runs, joining what continues. At most kMostAtOnce pages a call.
  static constexpr size_t kMostAtOnce = 256;
  void add(Lane& lane, uint64_t start, const char* pages, size_t count, bool huge, std::vector<PageRun>* runs,
           Zeros zeros = Zeros::leave_out);

  // Writes pages.sum into the directory; afterwards everything is with the sink (files are not yet synced). Gives the pages in each part;
  // the index of a part's first page is the part's number times kPartPages, so that indexes may have gaps.
  std::vector<uint64_t> finish(int dir_fd);

 private:
  void open_part(Lane& lane);

  std::unique_ptr<PageSink> sink_;
  std::mutex lock_;
  std::unordered_map<uint64_t, uint64_t> by_hash_;  // hash → index, of pages that are written already
  std::vector<std::vector<uint64_t>> hashes_;       // part → hashes of its pages
};

class PageFile {
 public:
  // `parts` (pages in each) as the manifest says, hashes from pages.sum. A file may be shorter than promised,
  // or changed: then reading fails with ERR_IMAGE_DAMAGED.
  PageFile(int dir_fd, std::vector<uint64_t> parts);

  // Reads and checks `count` pages from `index` into `to`.
  void read(uint64_t index, size_t count, char* to) const;
  // Reads and checks everything, with several threads. `stop` ends it early.
  void verify(unsigned threads, const std::atomic<bool>& stop) const;

 private:
  std::vector<uint64_t> pages_;   // in each part
  std::vector<uint64_t> offset_;  // of each part's hashes
  std::vector<uint64_t> hashes_;
  std::vector<UniqueFd> parts_;
};

}  // namespace virt
