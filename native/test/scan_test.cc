// memory/scan: PAGEMAP_SCAN and the entries of /proc/PID/pagemap must tell the same of the same memory.
#include "memory/scan.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <set>

#include "base/error.h"
#include "sys/file.h"
#include "test/support.h"

using namespace virt;
using virt::test::Random;
using virt::test::TemporaryDirectory;

namespace {

class Mapping {
 public:
  Mapping(size_t pages, int flags, int fd = -1)
      : start_(mmap(nullptr, pages * kPageBytes, PROT_READ | PROT_WRITE, flags, fd, 0)),
        size_(pages * kPageBytes) {
    REQUIRE(start_ != MAP_FAILED);
    // Page by page, or the two ways would differ by what the kernel happens to make huge.
    madvise(start_, size_, MADV_NOHUGEPAGE);
  }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  ~Mapping() { munmap(start_, size_); }
  [[nodiscard]] char* page(size_t i) const { return static_cast<char*>(start_) + i * kPageBytes; }
  [[nodiscard]] uint64_t start() const { return reinterpret_cast<uint64_t>(start_); }
  [[nodiscard]] uint64_t end() const { return start() + size_; }
  void write(size_t i) const { *page(i) = 'x'; }
  void touch(size_t i) const { (void)*static_cast<volatile char*>(page(i)); }

 private:
  void* start_;
  size_t size_;
};

std::set<size_t> pages_of(const Mapping& m, const std::vector<PageRange>& ranges) {
  std::set<size_t> out;
  uint64_t last = 0;
  for (const PageRange& r : ranges) {
    CHECK(r.start < r.end);
    CHECK_MESSAGE(r.start > last, "ascending, and neighbours joined");
    CHECK(r.start >= m.start());
    CHECK(r.end <= m.end());
    last = r.end;
    for (uint64_t at = r.start; at < r.end; at += kPageBytes) out.insert((at - m.start()) / kPageBytes);
  }
  return out;
}

std::set<size_t> by_ioctl(const Mapping& m, bool own_only) {
  return pages_of(m, PageScanner(getpid()).scan(m.start(), m.end(), own_only));
}

std::set<size_t> by_entries(const Mapping& m, bool own_only) {
  return pages_of(m, PageScanner(getpid(), false).scan(m.start(), m.end(), own_only));
}

}  // namespace

TEST_CASE("anonymous memory: what was written, and nothing else") {
  const Mapping m(300, MAP_PRIVATE | MAP_ANONYMOUS);
  CHECK(by_ioctl(m, true).empty());
  CHECK(by_entries(m, true).empty());
  Random random(1);
  std::set<size_t> written;
  for (int i = 0; i < 100; ++i) written.insert(random.below(300));
  for (const size_t i : written) m.write(i);
  for (const bool own : {true, false}) {
    CHECK(by_ioctl(m, own) == written);
    CHECK(by_entries(m, own) == written);
  }
  // Given back to the kernel: zeros again, nothing to carry.
  for (const size_t i : written) {
    if (i % 2 == 0) REQUIRE(madvise(m.page(i), kPageBytes, MADV_DONTNEED) == 0);
  }
  std::erase_if(written, [](size_t i) { return i % 2 == 0; });
  CHECK(by_ioctl(m, true) == written);
  CHECK(by_entries(m, true) == written);
  // A protection does not hide what is there.
  REQUIRE(mprotect(m.page(0), 300 * kPageBytes, PROT_NONE) == 0);
  CHECK(by_ioctl(m, true) == written);
  CHECK(by_entries(m, true) == written);
}

TEST_CASE("pages that were only read are the zero page: the ioctl leaves it out, the entries cannot tell") {
  const Mapping m(64, MAP_PRIVATE | MAP_ANONYMOUS);
  std::set<size_t> read, written;
  for (size_t i = 0; i < 64; i += 3) {
    m.touch(i);
    read.insert(i);
  }
  for (size_t i = 0; i < 64; i += 5) {
    m.write(i);
    written.insert(i);
  }
  CHECK(by_ioctl(m, true) == written);
  std::set<size_t> both = written;
  both.merge(read);
  CHECK(by_entries(m, true) == both);
}

TEST_CASE("a private file: own pages are those that were written; the others are the file's") {
  const TemporaryDirectory dir;
  const UniqueFd fd = open_file(dir.write("f", std::string(64 * kPageBytes, 'f')), O_RDWR);
  const Mapping m(64, MAP_PRIVATE, fd.get());
  for (size_t i = 0; i < 64; ++i) m.touch(i);
  m.write(7);
  m.write(63);
  CHECK(by_ioctl(m, true) == std::set<size_t>{7, 63});
  CHECK(by_entries(m, true) == std::set<size_t>{7, 63});
  CHECK(by_ioctl(m, false).size() == 64);
  CHECK(by_entries(m, false) == by_ioctl(m, false));
}

TEST_CASE("shared memory is nobody's own") {
  const Mapping m(32, MAP_SHARED | MAP_ANONYMOUS);
  m.write(3);
  m.write(4);
  CHECK(by_ioctl(m, true).empty());
  CHECK(by_entries(m, true).empty());
  CHECK(by_ioctl(m, false) == std::set<size_t>{3, 4});
  CHECK(by_entries(m, false) == std::set<size_t>{3, 4});
}

TEST_CASE("more pieces than fit in one answer") {
  const Mapping m(9000, MAP_PRIVATE | MAP_ANONYMOUS);
  for (size_t i = 0; i < 9000; i += 2) m.write(i);
  const auto pages = by_ioctl(m, true);
  CHECK(pages.size() == 4500);
  CHECK(*pages.rbegin() == 8998);
  CHECK(by_entries(m, true) == pages);
}

TEST_CASE("a range with holes, and the end of another process") {
  const Mapping m(10, MAP_PRIVATE | MAP_ANONYMOUS);
  for (size_t i = 0; i < 10; ++i) m.write(i);
  REQUIRE(munmap(m.page(4), 2 * kPageBytes) == 0);
  CHECK(by_ioctl(m, true).size() == 8);
  CHECK(by_entries(m, true) == by_ioctl(m, true));
  test::Child child([] {
    for (;;) pause();
    return 0;
  });
  const PageScanner ioctl(child.pid()), entries(child.pid(), false);
  CHECK(pages_of(m, ioctl.scan(m.start(), m.end(), true)).size() == 8);
  CHECK(pages_of(m, entries.scan(m.start(), m.end(), true)).size() == 8);
  child.kill_and_wait();
  // Its memory is gone, not empty: a capture must not take the one for the other. (Whoever looks into its /proc just
  // now keeps the memory for a moment.)
  for (const PageScanner* scanner : {&ioctl, &entries}) {
    std::string code;
    for (int i = 0; code.empty() && i < 1000; ++i) {
      try {
        (void)scanner->scan(m.start(), m.end(), true);
        test::sleep_us(1000);
      } catch (const OsError& e) {
        code = e.code();
      }
    }
    CHECK(code == "ERR_PROCESS_GONE");
  }
  CHECK_THROWS_AS(PageScanner(4194305), OsError);
}
