// The pages of an image: parts of equal size (`pages-1.bin`, …), raw and page-aligned, each page stored once,
// and one 64-bit hash a page (`pages.sum`). PageStore writes them, PageFile reads them. Both may be used by
// several threads at once.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

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

class PageStore {
 public:
  // Files are made in the directory `dir_fd`, which must be empty of them.
  explicit PageStore(int dir_fd);
  ~PageStore();

  // Where one thread writes: a part of its own, because writers of one file wait for each other in the
  // kernel.
  class Lane {
   private:
    friend class PageStore;
    uint64_t part = 0, used = kPartPages;
  };

  // Stores `count` pages that lie at `pages` and belong at `start`: zero ones are left out (unless they
  // are to be kept), known ones referred to. What was written is read back and compared
  // (ERR_IMAGE_DAMAGED). Appends to *runs, joining what continues. At most kMostAtOnce pages a call.
  static constexpr size_t kMostAtOnce = 256;
  void add(Lane& lane, uint64_t start, const char* pages, size_t count, bool huge, std::vector<PageRun>* runs,
           bool keep_zeros = false);

  // Writes pages.sum; afterwards everything is in the files (not yet synced). Gives the pages in each part;
  // the index of a part's first page is the part's number times kPartPages, so that indexes may have gaps.
  std::vector<uint64_t> finish();

 private:
  void open_part(Lane& lane);
  int part_fd(uint64_t part);
  bool same_as_stored(const char* page, uint64_t index);
  void write_pages(const char* const* pages, size_t count, uint64_t first);

  int dir_fd_;
  std::mutex lock_;
  std::unordered_map<uint64_t, uint64_t> by_hash_;  // hash → index, of pages that are in the file already
  std::vector<std::vector<uint64_t>> hashes_;       // part → hashes of its pages
  std::vector<UniqueFd> parts_;
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
