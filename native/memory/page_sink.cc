// FileSink: an image's pages in files of this host.
#include "memory/page_sink.h"

#include <fcntl.h>
#include <sys/uio.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "base/error.h"
#include "base/fault.h"
#include "memory/page_store.h"
#include "sys/file.h"

namespace virt {
namespace {

OsError damaged(const std::string& name, const std::string& what) {
  OsError e("ERR_IMAGE_DAMAGED", "pread", 0, what);
  e.at_path(name);
  return e;
}

}  // namespace

int FileSink::part_fd(uint64_t part) {
  const std::lock_guard guard(lock_);
  return parts_.at(part).get();
}

bool FileSink::holds(const char* page, uint64_t index) {
  alignas(64) char stored[kPageBytes];
  read_exactly(part_fd(index / kPartPages), stored, sizeof stored, index % kPartPages * kPageBytes,
               "comparing with a stored page");
  return std::memcmp(stored, page, kPageBytes) == 0;
}

void FileSink::open_part(uint64_t part) {
  const std::string name = part_name(part);
  UniqueFd fd(openat(dir_fd_, name.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!fd) throw OsError("openat", errno, "making a pages file").at_path(name);
  const std::lock_guard guard(lock_);
  parts_.push_back(std::move(fd));
}

void FileSink::write(const char* const* pages, const uint64_t* /*hashes*/, size_t count, uint64_t first) {
  fault_point("capture-write-pages");
  const uint64_t part = first / kPartPages;
  const int fd = part_fd(part);
  std::array<iovec, PageStore::kMostAtOnce> vectors;
  size_t n = 0;
  for (size_t i = 0; i < count; ++i) {
    char* p = const_cast<char*>(pages[i]);
    if (n > 0 && static_cast<char*>(vectors[n - 1].iov_base) + vectors[n - 1].iov_len == p) {
      vectors[n - 1].iov_len += kPageBytes;
    } else {
      vectors[n++] = {p, kPageBytes};
    }
  }
  auto offset = static_cast<off_t>(first % kPartPages * kPageBytes);
  size_t v = 0;
  for (size_t left = count * kPageBytes; left > 0;) {
    const ssize_t wrote = pwritev(fd, &vectors[v], static_cast<int>(n - v), offset);
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote <= 0)
      throw OsError("pwritev", wrote < 0 ? errno : ENOSPC, "writing pages").at_path(part_name(part));
    left -= static_cast<size_t>(wrote);
    offset += wrote;
    auto rest = static_cast<size_t>(wrote);
    while (v < n && rest >= vectors[v].iov_len) rest -= vectors[v++].iov_len;
    if (rest > 0) {
      vectors[v].iov_base = static_cast<char*>(vectors[v].iov_base) + rest;
      vectors[v].iov_len -= rest;
    }
  }
  // Read back at once, while it is still in the processor's cache: once more through memory would cost a third more.
  thread_local std::vector<char> back(PageStore::kMostAtOnce * kPageBytes);
  read_exactly(fd, back.data(), count * kPageBytes, first % kPartPages * kPageBytes, "reading back pages");
  for (size_t i = 0; i < count; ++i) {
    if (std::memcmp(back.data() + i * kPageBytes, pages[i], kPageBytes) != 0) {
      throw damaged(part_name(part), "page " + std::to_string(first + i) + " is not what was written");
    }
  }
}

}  // namespace virt
