#include "files/copy.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <vector>

#include "base/error.h"
#include "sys/file.h"

namespace virt {
namespace {

constexpr size_t kPage = 4096, kBlock = 1 << 20;

bool is_zero(const char* page, size_t size) {
  return page[0] == 0 && std::memcmp(page, page + 1, size - 1) == 0;
}

// What lies from `at` to `end`, pages of zeros left out.
void copy_nonzero(int from, int to, uint64_t at, uint64_t end) {
  std::vector<char> block(kBlock);
  while (at < end) {
    const ssize_t n =
        check(pread(from, block.data(), std::min<uint64_t>(kBlock, end - at), static_cast<off_t>(at)),
              "pread", "reading a carried file");
    if (n == 0) return;
    const auto size = static_cast<size_t>(n);
    for (size_t start = 0; start < size;) {
      size_t stop = start;
      while (stop < size && !is_zero(&block[stop], std::min(kPage, size - stop)))
        stop += std::min(kPage, size - stop);
      if (stop > start) write_exactly(to, &block[start], stop - start, at + start, "writing a carried file");
      start = stop;
      while (start < size && is_zero(&block[start], std::min(kPage, size - start)))
        start += std::min(kPage, size - start);
    }
    at += size;
  }
}

void copy_bytes(int from, int to, uint64_t start, uint64_t end) {
  check(lseek(to, static_cast<off_t>(start), SEEK_SET), "lseek", "writing a carried file");
  auto at = static_cast<off_t>(start);
  while (at < static_cast<off_t>(end)) {
    const ssize_t n = sendfile(to, from, &at, static_cast<size_t>(static_cast<off_t>(end) - at));
    if (n < 0 && errno == EINTR) continue;
    check(n, "sendfile", "writing a carried file");
    if (n == 0) return;  // it has become shorter
  }
}

}  // namespace

uint64_t copy_content(int from, int to, uint64_t most, bool leave_zeros) {
  struct stat st {};
  check(fstat(from, &st), "fstat", "reading a carried file");
  const uint64_t size = std::min(static_cast<uint64_t>(st.st_size), most);
  // Where the file system can share the blocks nothing is copied (ioctl_ficlone(2)).
  if (size == static_cast<uint64_t>(st.st_size) && !leave_zeros && ioctl(to, FICLONE, from) == 0) return size;
  check(ftruncate(to, static_cast<off_t>(size)), "ftruncate", "writing a carried file");
  for (uint64_t at = 0; at < size;) {
    const off_t data = lseek(from, static_cast<off_t>(at), SEEK_DATA);
    if (data < 0 && errno == ENXIO) break;
    check(data, "lseek", "reading a carried file");
    const off_t hole = check(lseek(from, data, SEEK_HOLE), "lseek", "reading a carried file");
    const uint64_t end = std::min(static_cast<uint64_t>(hole), size);
    if (leave_zeros) {
      copy_nonzero(from, to, static_cast<uint64_t>(data), end);
    } else {
      copy_bytes(from, to, static_cast<uint64_t>(data), end);
    }
    at = end;
  }
  return size;
}

bool same_content(int one, int other) {
  struct stat a {
  }, b{};
  if (fstat(one, &a) != 0 || fstat(other, &b) != 0 || a.st_size != b.st_size) return false;
  std::vector<char> left(kBlock), right(kBlock);
  for (off_t at = 0; at < a.st_size;) {
    const ssize_t n = pread(one, left.data(), kBlock, at);
    if (n <= 0 || pread(other, right.data(), static_cast<size_t>(n), at) != n) return false;
    if (std::memcmp(left.data(), right.data(), static_cast<size_t>(n)) != 0) return false;
    at += n;
  }
  return true;
}

}  // namespace virt
