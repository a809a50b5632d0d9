#include "memory/page_store.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "base/error.h"
#include "base/fault.h"
#include "base/parallel.h"
#include "base/value.h"
#include "memory/page_hash.h"
#include "sys/file.h"

namespace virt {
namespace {

OsError damaged(const std::string& name, const char* call, int error, const std::string& what) {
  OsError e("ERR_IMAGE_DAMAGED", call, error, what);
  e.at_path(name);
  return e;
}

}  // namespace

std::string part_name(uint64_t part) { return "pages-" + std::to_string(part + 1) + ".bin"; }

PageStore::PageStore(std::unique_ptr<PageSink> sink) : sink_(std::move(sink)) {}

PageStore::~PageStore() = default;

void PageStore::add(Lane& lane, uint64_t start, const char* pages, size_t count, bool huge,
                    std::vector<PageRun>* runs, Zeros zeros) {
  if (count > kMostAtOnce) throw Bug("PageStore: too many pages at once");
  constexpr uint64_t kNone = ~uint64_t{0};
  std::array<PageDigest, kMostAtOnce> digests;
  std::array<uint64_t, kMostAtOnce> index;  // kNone: to be written
  index.fill(kNone);
  for (size_t i = 0; i < count; ++i) {
    digests[i] = digest_page(pages + i * kPageBytes);
    if (zeros == Zeros::keep) digests[i].zero = false;
  }
  {
    const std::lock_guard guard(lock_);
    for (size_t i = 0; i < count; ++i) {
      if (digests[i].zero) continue;
      const auto known = by_hash_.find(digests[i].hash);
      if (known != by_hash_.end()) index[i] = known->second;
    }
  }
  // Equal hashes are a guess, equal bytes are equal.
  for (size_t i = 0; i < count; ++i) {
    if (index[i] != kNone && !sink_->holds(pages + i * kPageBytes, index[i])) index[i] = kNone;
  }
  // Fresh ones, equal ones among themselves once.
  std::array<size_t, kMostAtOnce> fresh;
  std::array<const char*, kMostAtOnce> fresh_pages;
  std::array<uint64_t, kMostAtOnce> fresh_hashes;
  std::array<size_t, kMostAtOnce> fresh_of;  // page → position among the fresh
  size_t fresh_count = 0;
  for (size_t i = 0; i < count; ++i) {
    if (digests[i].zero || index[i] != kNone) continue;
    const char* page = pages + i * kPageBytes;
    size_t twin = 0;
    while (twin < fresh_count && (digests[fresh[twin]].hash != digests[i].hash ||
                                  std::memcmp(fresh_pages[twin], page, kPageBytes) != 0)) {
      ++twin;
    }
    fresh_of[i] = twin;
    if (twin == fresh_count) {
      fresh[fresh_count] = i;
      fresh_hashes[fresh_count] = digests[i].hash;
      fresh_pages[fresh_count++] = page;
    }
  }
  std::array<uint64_t, kMostAtOnce> fresh_index;
  for (size_t done = 0; done < fresh_count;) {
    if (lane.used == kPartPages) open_part(lane);
    const size_t here = std::min<uint64_t>(fresh_count - done, kPartPages - lane.used);
    const uint64_t first = lane.part * kPartPages + lane.used;
    sink_->write(fresh_pages.data() + done, fresh_hashes.data() + done, here, first);
    lane.used += here;
    for (size_t k = 0; k < here; ++k) fresh_index[done + k] = first + k;
    done += here;
  }
  if (fresh_count > 0) {
    // Known to others only now that the bytes are in the file, so that comparing never reads what is not
    // there.
    const std::lock_guard guard(lock_);
    for (size_t k = 0; k < fresh_count; ++k) {
      hashes_[fresh_index[k] / kPartPages].push_back(digests[fresh[k]].hash);
      by_hash_.emplace(digests[fresh[k]].hash, fresh_index[k]);
    }
    for (size_t i = 0; i < count; ++i) {
      if (!digests[i].zero && index[i] == kNone) index[i] = fresh_index[fresh_of[i]];
    }
  }
  for (size_t i = 0; i < count; ++i) {
    if (digests[i].zero && zeros == Zeros::mark) index[i] = kZeroPages;
    if (index[i] == kNone) continue;
    const uint64_t address = start + i * kPageBytes;
    if (!runs->empty()) {
      PageRun& last = runs->back();
      if (last.huge == huge && last.start + last.count * kPageBytes == address &&
          last.index + (index[i] == kZeroPages ? 0 : last.count) == index[i]) {
        ++last.count;
        continue;
      }
    }
    runs->push_back({address, 1, index[i], huge});
  }
}

void PageStore::open_part(Lane& lane) {
  const std::lock_guard guard(lock_);
  lane.part = hashes_.size();
  lane.used = 0;
  sink_->open_part(lane.part);
  hashes_.emplace_back();
}

std::vector<uint64_t> PageStore::finish(int dir_fd) {
  const std::lock_guard guard(lock_);
  UniqueFd sums(openat(dir_fd, "pages.sum", O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!sums) throw OsError("openat", errno, "making the pages' sums").at_path("pages.sum");
  std::vector<uint64_t> pages;
  uint64_t at = 0;
  std::vector<uint64_t> back;
  for (const auto& hashes : hashes_) {
    const size_t size = hashes.size() * sizeof hashes[0];
    write_exactly(sums.get(), hashes.data(), size, at, "writing the pages' sums");
    back.resize(hashes.size());
    read_exactly(sums.get(), back.data(), size, at, "reading back the pages' sums");
    if (back != hashes) throw damaged("pages.sum", "pread", 0, "the pages' sums are not what was written");
    at += size;
    pages.push_back(hashes.size());
  }
  return pages;
}

PageFile::PageFile(int dir_fd, std::vector<uint64_t> parts) : pages_(std::move(parts)) {
  uint64_t total = 0;
  for (const uint64_t pages : pages_) {
    if (pages > kPartPages) throw BadValue("a part of the image with too many pages");
    offset_.push_back(total);
    total += pages;
  }
  const auto open_part = [dir_fd](const std::string& name) {
    UniqueFd fd(openat(dir_fd, name.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
    if (!fd) throw damaged(name, "openat", errno, "opening a part of the image");
    return fd;
  };
  const UniqueFd sums = open_part("pages.sum");
  struct stat st {};
  check(fstat(sums.get(), &st), "fstat", "examining the image's page sums");
  if (static_cast<uint64_t>(st.st_size) != total * sizeof(uint64_t)) {
    throw damaged("pages.sum", "read", 0, "the image's page sums have the wrong size");
  }
  hashes_.resize(total);
  if (total > 0)
    read_exactly(sums.get(), hashes_.data(), total * sizeof(uint64_t), 0, "reading the image's page sums");
  for (size_t part = 0; part < pages_.size(); ++part) parts_.push_back(open_part(part_name(part)));
}

void PageFile::read(uint64_t index, size_t count, char* to) const {
  for (size_t done = 0; done < count;) {
    const uint64_t part = (index + done) / kPartPages, first = (index + done) % kPartPages;
    const size_t here = std::min<uint64_t>(count - done, kPartPages - first);
    if (part >= parts_.size() || first + here > pages_[part])
      throw BadValue("a page run lies outside the image's pages");
    char* at = to + done * kPageBytes;
    try {
      read_exactly(parts_[part].get(), at, here * kPageBytes, first * kPageBytes,
                   "reading pages of the image");
    } catch (const OsError& e) {
      throw damaged(part_name(part), e.call().c_str(), e.error(), e.doing());
    }
    for (size_t i = 0; i < here; ++i) {
      if (digest_page(at + i * kPageBytes).hash != hashes_[offset_[part] + first + i]) {
        throw damaged(part_name(part), "read", 0,
                      "page " + std::to_string(first + i) + " is not what was written");
      }
    }
    done += here;
  }
}

void PageFile::verify(unsigned threads, const std::atomic<bool>& stop) const {
  constexpr size_t kChunk = PageStore::kMostAtOnce;
  std::vector<std::pair<uint64_t, size_t>> chunks;
  for (size_t part = 0; part < pages_.size(); ++part) {
    for (uint64_t at = 0; at < pages_[part]; at += kChunk) {
      chunks.emplace_back(part * kPartPages + at, std::min<uint64_t>(kChunk, pages_[part] - at));
    }
  }
  run_parallel(chunks.size(), threads, [&] {
    return [&, buffer = std::vector<char>(kChunk * kPageBytes)](size_t i) mutable {
      if (stop.load(std::memory_order_relaxed))
        throw OsError("ERR_ABORTED", "read", ECANCELED, "stopped on request");
      read(chunks[i].first, chunks[i].second, buffer.data());
    };
  });
}

}  // namespace virt
