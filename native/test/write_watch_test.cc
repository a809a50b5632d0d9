// memory/write_watch: every written page is told once, whoever wrote it, and no other.
#include "memory/write_watch.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <memory>
#include <set>

#include "base/error.h"
#include "test/support.h"

#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif

using namespace virt;
using virt::test::Random;

namespace {

constexpr size_t kPages = 600;

class Watched {
 public:
  Watched()
      : start_(static_cast<char*>(
            mmap(nullptr, kPages * kPageBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0))) {
    REQUIRE(start_ != MAP_FAILED);
    madvise(start_, kPages * kPageBytes, MADV_NOHUGEPAGE);
  }
  Watched(const Watched&) = delete;
  Watched& operator=(const Watched&) = delete;
  ~Watched() { munmap(start_, kPages * kPageBytes); }
  [[nodiscard]] char* page(size_t i) const { return start_ + i * kPageBytes; }
  [[nodiscard]] uint64_t start() const { return reinterpret_cast<uint64_t>(start_); }
  [[nodiscard]] uint64_t end() const { return start() + kPages * kPageBytes; }
  [[nodiscard]] std::set<size_t> numbers(const std::vector<PageRange>& ranges) const {
    std::set<size_t> out;
    for (const PageRange& r : ranges) {
      for (uint64_t at = r.start; at < r.end; at += kPageBytes) out.insert((at - start()) / kPageBytes);
    }
    return out;
  }

 private:
  char* start_;
};

// Nothing on a kernel without asynchronous write protection.
std::unique_ptr<WriteWatch> watch_self() {
  UniqueFd fd(static_cast<int>(syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY)));
  REQUIRE(fd);
  try {
    return std::make_unique<WriteWatch>(getpid(), std::move(fd));
  } catch (const OsError& e) {
    MESSAGE("not tried: ", e.what());
    return nullptr;
  }
}

}  // namespace

TEST_CASE("written pages are told once") {
  const auto watch = watch_self();
  if (!watch) return;
  Watched memory;
  *memory.page(3) = 'x';  // before it is watched
  REQUIRE(watch->watch(memory.start(), memory.end()));
  REQUIRE(watch->watch(memory.start(), memory.end()));
  CHECK(memory.numbers(watch->take(memory.start(), memory.end())) == std::set<size_t>{3});
  Random random(5);
  for (int round = 0; round < 50; ++round) {
    std::set<size_t> written;
    for (size_t i = 0; i < random.below(200); ++i) {
      const size_t page = random.below(kPages);
      written.insert(page);
      memory.page(page)[random.below(kPageBytes)]++;
      (void)*static_cast<volatile char*>(memory.page(random.below(kPages)));  // reading is not writing
    }
    CHECK(watch->written_bytes(memory.start(), memory.end()) == written.size() * kPageBytes);
    CHECK(memory.numbers(watch->take(memory.start(), memory.end())) == written);
    CHECK(watch->take(memory.start(), memory.end()).empty());
  }
}

TEST_CASE(
    "what the kernel writes is seen, and what was dropped is not taken for unwritten when it is written "
    "again") {
  const auto watch = watch_self();
  if (!watch) return;
  Watched memory;
  for (size_t i = 0; i < kPages; ++i) *memory.page(i) = 'x';
  REQUIRE(watch->watch(memory.start(), memory.end()));
  CHECK(memory.numbers(watch->take(memory.start(), memory.end())).size() == kPages);
  const UniqueFd zero(open("/dev/zero", O_RDONLY | O_CLOEXEC));
  CHECK(read(zero.get(), memory.page(7), 10) == 10);
  CHECK(memory.numbers(watch->take(memory.start(), memory.end())) == std::set<size_t>{7});
  REQUIRE(madvise(memory.page(20), 10 * kPageBytes, MADV_DONTNEED) == 0);
  CHECK(watch->take(memory.start(), memory.end()).empty());
  *memory.page(25) = 'y';
  CHECK(memory.numbers(watch->take(memory.start(), memory.end())) == std::set<size_t>{25});
  for (const PageRange& r : PageScanner(getpid()).scan(memory.start(), memory.end(), true, true))
    CHECK(r.unwritten);
}

TEST_CASE("a mapping that was moved or replaced is not watched any more") {
  const auto watch = watch_self();
  if (!watch) return;
  Watched memory;
  for (size_t i = 0; i < kPages; ++i) *memory.page(i) = 'x';
  REQUIRE(watch->watch(memory.start(), memory.end()));
  (void)watch->take(memory.start(), memory.end());
  REQUIRE(mmap(memory.page(0), 10 * kPageBytes, PROT_READ | PROT_WRITE,
               MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == memory.page(0));
  *memory.page(1) = 'y';
  CHECK(watch->watches(memory.start() + 10 * kPageBytes, memory.end()));
  CHECK(!watch->watches(memory.start(), memory.start() + 10 * kPageBytes));
  CHECK(watch->take(memory.start(), memory.end()).empty());
  const auto seen = PageScanner(getpid()).scan(memory.start(), memory.start() + 10 * kPageBytes, true, true);
  REQUIRE(seen.size() == 1);
  CHECK(!seen[0].unwritten);
  REQUIRE(watch->watch(memory.start(), memory.end()));
  CHECK(memory.numbers(watch->take(memory.start(), memory.end())) == std::set<size_t>{1});
}
