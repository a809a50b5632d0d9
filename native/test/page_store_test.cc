// memory/page_hash and memory/page_store: what is stored comes back, once, checked.
#include "memory/page_store.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <thread>

#include "base/error.h"
#include "base/value.h"
#include "memory/page_hash.h"
#include "sys/file.h"
#include "test/support.h"

using namespace virt;
using virt::test::Child;
using virt::test::Random;
using virt::test::TemporaryDirectory;

namespace {

using Page = std::string;

Page random_page(Random& random) {
  Page page(kPageBytes, '\0');
  for (size_t i = 0; i < page.size(); i += 8) {
    const uint64_t n = random.next();
    std::memcpy(page.data() + i, &n, 8);
  }
  return page;
}

const Page kZero(kPageBytes, '\0');

// Reads runs back into pages by address.
std::map<uint64_t, Page> read_back(const PageFile& file, const std::vector<PageRun>& runs) {
  std::map<uint64_t, Page> pages;
  for (const PageRun& r : runs) {
    std::string bytes(r.count * kPageBytes, '\0');
    file.read(r.index, r.count, bytes.data());
    for (uint64_t i = 0; i < r.count; ++i)
      pages[r.start + i * kPageBytes] = bytes.substr(i * kPageBytes, kPageBytes);
  }
  return pages;
}

uint64_t total(const std::vector<uint64_t>& parts) {
  uint64_t sum = 0;
  for (const uint64_t n : parts) sum += n;
  return sum;
}

std::string code_of(const std::function<void()>& f, std::string* path = nullptr) {
  try {
    f();
  } catch (const OsError& e) {
    if (path != nullptr) *path = e.where().path;
    return e.code();
  } catch (const BadValue&) {
    return "BadValue";
  }
  return "";
}

const std::atomic<bool> kGoOn = false;

// An image of `count` different pages in one part.
std::vector<uint64_t> store_pages(const TemporaryDirectory& dir, const std::vector<Page>& pages) {
  PageStore store(std::make_unique<FileSink>(dir.fd()));
  PageStore::Lane lane;
  std::vector<PageRun> runs;
  for (size_t i = 0; i < pages.size(); ++i) store.add(lane, i * kPageBytes, pages[i].data(), 1, false, &runs);
  return store.finish(dir.fd());
}

void flip_byte(const std::string& path, off_t at) {
  const UniqueFd fd = open_file(path, O_RDWR);
  char byte;
  read_exactly(fd.get(), &byte, 1, static_cast<uint64_t>(at), "reading");
  byte = static_cast<char>(byte ^ 0x10);
  write_exactly(fd.get(), &byte, 1, static_cast<uint64_t>(at), "writing");
}

}  // namespace

TEST_CASE("a page's hash depends on every bit of it") {
  Random random(1);
  for (const Page& original : {kZero, random_page(random), Page(kPageBytes, '\xff')}) {
    const uint64_t hash = digest_page(original.data()).hash;
    for (size_t bit = 0; bit < kPageBytes * 8; ++bit) {
      Page page = original;
      page[bit / 8] = static_cast<char>(page[bit / 8] ^ (1 << bit % 8));
      if (digest_page(page.data()).hash == hash) FAIL("bit ", bit, " does not count");
    }
  }
}

TEST_CASE("a page's hash depends on where its words are") {
  Random random(2);
  for (int round = 0; round < 2000; ++round) {
    Page page = random_page(random);
    const uint64_t hash = digest_page(page.data()).hash;
    const size_t a = random.below(512) * 8, b = random.below(512) * 8;
    if (a == b) continue;
    std::swap_ranges(page.begin() + static_cast<ptrdiff_t>(a), page.begin() + static_cast<ptrdiff_t>(a + 8),
                     page.begin() + static_cast<ptrdiff_t>(b));
    CHECK(digest_page(page.data()).hash != hash);
  }
}

TEST_CASE("the hash is part of the image format: it stays what it is") {
  Page page(kPageBytes, '\0');
  CHECK(digest_page(page.data()).zero);
  CHECK(digest_page(page.data()).hash == 15949111365632590416ULL);
  for (size_t i = 0; i < page.size(); ++i) page[i] = static_cast<char>(i * 7);
  CHECK(digest_page(page.data()).hash == 11250121601511699248ULL);
  CHECK(!digest_page(page.data()).zero);
  page.assign(kPageBytes, '\0');
  page.back() = 1;
  CHECK(!digest_page(page.data()).zero);
}

TEST_CASE("zero pages are left out, equal ones stored once, neighbours joined") {
  const TemporaryDirectory dir;
  Random random(3);
  const Page a = random_page(random), b = random_page(random), c = random_page(random);
  const std::string bytes = a + b + kZero + a + b + c + c;
  PageStore store(std::make_unique<FileSink>(dir.fd()));
  PageStore::Lane lane;
  std::vector<PageRun> runs;
  store.add(lane, 0x10000, bytes.data(), 7, false, &runs);
  // Once more elsewhere, as a forked process has it.
  store.add(lane, 0x90000, bytes.data(), 7, false, &runs);
  const auto parts = store.finish(dir.fd());
  CHECK(parts == std::vector<uint64_t>{3});
  struct stat st {};
  REQUIRE(stat((dir.path() + "/pages-1.bin").c_str(), &st) == 0);
  CHECK(st.st_size == 3 * kPageBytes);
  // 0,1 | zero | 0,1,2 | 2, twice.
  REQUIRE(runs.size() == 6);
  CHECK(runs[0].count == 2);
  CHECK(runs[1].start == 0x13000);
  CHECK(runs[1].count == 3);
  CHECK(runs[2].index == 2);
  const PageFile file(dir.fd(), parts);
  const auto back = read_back(file, runs);
  CHECK(back.size() == 12);
  for (const uint64_t base : {0x10000, 0x90000}) {
    CHECK(back.at(base) == a);
    CHECK(back.at(base + 0x1000) == b);
    CHECK(!back.contains(base + 0x2000));
    CHECK(back.at(base + 0x3000) == a);
    CHECK(back.at(base + 0x4000) == b);
    CHECK(back.at(base + 0x5000) == c);
    CHECK(back.at(base + 0x6000) == c);
  }
}

TEST_CASE("huge and small pages are not joined") {
  const TemporaryDirectory dir;
  Random random(4);
  PageStore store(std::make_unique<FileSink>(dir.fd()));
  PageStore::Lane lane;
  std::vector<PageRun> runs;
  const Page a = random_page(random), b = random_page(random);
  store.add(lane, 0x1000, a.data(), 1, false, &runs);
  store.add(lane, 0x2000, b.data(), 1, true, &runs);
  REQUIRE(runs.size() == 2);
  CHECK(!runs[0].huge);
  CHECK(runs[1].huge);
}

TEST_CASE("nothing stored is an image without parts") {
  const TemporaryDirectory dir;
  PageStore store(std::make_unique<FileSink>(dir.fd()));
  PageStore::Lane lane;
  std::vector<PageRun> runs;
  store.add(lane, 0, kZero.data(), 1, false, &runs);
  CHECK(runs.empty());
  const auto parts = store.finish(dir.fd());
  CHECK(parts.empty());
  const PageFile file(dir.fd(), parts);
  file.verify(2, kGoOn);
  char page[kPageBytes];
  CHECK(code_of([&] { file.read(0, 1, page); }) == "BadValue");
  CHECK_THROWS_AS(store.add(lane, 0, kZero.data(), PageStore::kMostAtOnce + 1, false, &runs), Bug);
}

TEST_CASE("several threads store at once; every page comes back, and few are stored twice") {
  const TemporaryDirectory dir;
  constexpr size_t kThreads = 4, kPagesEach = 6000, kShared = 64;
  std::vector<Page> shared;
  Random random(5);
  for (size_t i = 0; i < kShared; ++i) shared.push_back(random_page(random));
  PageStore store(std::make_unique<FileSink>(dir.fd()));
  std::vector<std::vector<PageRun>> runs(kThreads);
  const auto page_of = [&](size_t thread, size_t i) -> Page {
    Random own(thread * kPagesEach + i);
    const size_t kind = own.below(4);
    return kind == 0 ? kZero : kind == 1 ? shared[own.below(kShared)] : random_page(own);
  };
  {
    std::vector<std::jthread> threads;
    for (size_t t = 0; t < kThreads; ++t) {
      threads.emplace_back([&, t] {
        PageStore::Lane lane;
        Random sizes(t);
        for (size_t i = 0; i < kPagesEach;) {
          const size_t count = std::min(kPagesEach - i, 1 + sizes.below(PageStore::kMostAtOnce));
          std::string bytes;
          for (size_t k = 0; k < count; ++k) bytes += page_of(t, i + k);
          store.add(lane, i * kPageBytes, bytes.data(), count, false, &runs[t]);
          i += count;
        }
      });
    }
  }
  const auto parts = store.finish(dir.fd());
  const PageFile file(dir.fd(), parts);
  file.verify(3, kGoOn);
  size_t expected = 0;
  for (size_t t = 0; t < kThreads; ++t) {
    const auto back = read_back(file, runs[t]);
    for (size_t i = 0; i < kPagesEach; ++i) {
      const Page wanted = page_of(t, i);
      const auto found = back.find(i * kPageBytes);
      const bool right =
          wanted == kZero ? found == back.end() : found != back.end() && found->second == wanted;
      if (!right) FAIL("thread ", t, " page ", i);
      Random own(t * kPagesEach + i);
      expected += own.below(4) > 1 ? 1 : 0;
    }
  }
  // A shared page may be written by each thread once, if they meet it at the same moment; never more often.
  CHECK(total(parts) >= expected + kShared);
  CHECK(total(parts) <= expected + kShared * kThreads);
}

TEST_CASE("a full part is followed by another, and a run may go on in it") {
  const TemporaryDirectory dir;
  PageStore store(std::make_unique<FileSink>(dir.fd()));
  PageStore::Lane lane;
  std::vector<PageRun> runs;
  constexpr uint64_t kPages = kPartPages + 100;
  std::string bytes;
  for (uint64_t i = 0; i < kPages; i += 100) {
    bytes.assign(100 * kPageBytes, '\0');
    for (uint64_t k = 0; k < 100 && i + k < kPages; ++k) {
      const uint64_t number = i + k + 1;
      std::memcpy(bytes.data() + k * kPageBytes + 8, &number, 8);
    }
    store.add(lane, i * kPageBytes, bytes.data(), std::min<uint64_t>(100, kPages - i), false, &runs);
  }
  const auto parts = store.finish(dir.fd());
  CHECK(parts == std::vector<uint64_t>{kPartPages, 100});
  REQUIRE(runs.size() == 1);
  CHECK(runs[0].count == kPages);
  const PageFile file(dir.fd(), parts);
  std::string two(2 * kPageBytes, '\0');
  file.read(kPartPages - 1, 2, two.data());
  uint64_t number = 0;
  std::memcpy(&number, two.data() + 8, 8);
  CHECK(number == kPartPages);
  std::memcpy(&number, two.data() + kPageBytes + 8, 8);
  CHECK(number == kPartPages + 1);
  CHECK(code_of([&] { file.read(kPartPages + 99, 2, two.data()); }) == "BadValue");
  CHECK(code_of([&] { file.read(2 * kPartPages, 1, two.data()); }) == "BadValue");
  CHECK(code_of([&] { file.read(~uint64_t{0}, 1, two.data()); }) == "BadValue");
}

TEST_CASE("files that are there already are not touched") {
  for (const char* name : {"pages-1.bin", "pages.sum"}) {
    CAPTURE(name);
    const TemporaryDirectory dir;
    const std::string path = dir.write(name, "somebody else's");
    Random random(6);
    CHECK_THROWS_AS((void)store_pages(dir, {random_page(random)}), OsError);
    CHECK(read_file(path) == "somebody else's");
  }
}

TEST_CASE("a disk that is full while pages are written is an error with the part's name") {
  const TemporaryDirectory dir;
  Child child([&dir] {
    signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{3 * kPageBytes + 100, 3 * kPageBytes + 100};
    setrlimit(RLIMIT_FSIZE, &limit);
    Random random(7);
    std::vector<Page> pages;
    for (int i = 0; i < 8; ++i) pages.push_back(random_page(random));
    try {
      (void)store_pages(dir, pages);
    } catch (const OsError& e) {
      return e.error() == EFBIG && e.where().path == "pages-1.bin" ? 0 : 1;
    }
    return 2;
  });
  CHECK(child.wait() == 0);
}

TEST_CASE("every changed byte of a part is found and named") {
  const TemporaryDirectory dir;
  Random random(8);
  std::vector<Page> pages;
  for (int i = 0; i < 40; ++i) pages.push_back(random_page(random));
  const auto parts = store_pages(dir, pages);
  const std::string path = dir.path() + "/pages-1.bin";
  PageFile(dir.fd(), parts).verify(2, kGoOn);
  for (int round = 0; round < 200; ++round) {
    const auto at = static_cast<off_t>(random.below(40 * kPageBytes));
    flip_byte(path, at);
    std::string named;
    CHECK(code_of([&] { PageFile(dir.fd(), parts).verify(2, kGoOn); }, &named) == "ERR_IMAGE_DAMAGED");
    CHECK(named == "pages-1.bin");
    // Only that page is bad.
    const PageFile file(dir.fd(), parts);
    char page[kPageBytes];
    for (uint64_t i = 0; i < 40; ++i) {
      CHECK(code_of([&] { file.read(i, 1, page); }) ==
            (i == static_cast<uint64_t>(at) / kPageBytes ? "ERR_IMAGE_DAMAGED" : ""));
    }
    flip_byte(path, at);
  }
  PageFile(dir.fd(), parts).verify(2, kGoOn);
}

TEST_CASE("parts and sums that are cut off, missing, swapped or links are damage") {
  const TemporaryDirectory dir;
  Random random(9);
  const auto parts = store_pages(dir, {random_page(random), random_page(random), random_page(random)});
  const std::string part = dir.path() + "/pages-1.bin", sums = dir.path() + "/pages.sum";
  const std::string part_bytes = read_file(part), sums_bytes = read_file(sums);
  const auto outcome = [&](std::string* path = nullptr) {
    return code_of([&] { PageFile(dir.fd(), parts).verify(1, kGoOn); }, path);
  };
  CHECK(outcome() == "");
  std::string named;
  for (const size_t size : {size_t{0}, size_t{1}, size_t{kPageBytes}, part_bytes.size() - 1}) {
    CAPTURE(size);
    (void)dir.write("pages-1.bin", part_bytes.substr(0, size));
    CHECK(outcome(&named) == "ERR_IMAGE_DAMAGED");
    CHECK(named == "pages-1.bin");
  }
  (void)dir.write("pages-1.bin", part_bytes.substr(kPageBytes) + part_bytes.substr(0, kPageBytes));
  CHECK(outcome() == "ERR_IMAGE_DAMAGED");
  (void)dir.write("pages-1.bin", part_bytes);
  for (const size_t size : {size_t{0}, size_t{8}, sums_bytes.size() - 1}) {
    (void)dir.write("pages.sum", sums_bytes.substr(0, size));
    CHECK(outcome(&named) == "ERR_IMAGE_DAMAGED");
    CHECK(named == "pages.sum");
  }
  (void)dir.write("pages.sum", sums_bytes + "12345678");
  CHECK(outcome() == "ERR_IMAGE_DAMAGED");
  (void)dir.write("pages.sum", sums_bytes);
  CHECK(outcome() == "");
  // A link could lead anywhere.
  REQUIRE(rename(part.c_str(), (dir.path() + "/aside").c_str()) == 0);
  CHECK(outcome(&named) == "ERR_IMAGE_DAMAGED");
  CHECK(named == "pages-1.bin");
  REQUIRE(symlink("aside", part.c_str()) == 0);
  CHECK(outcome() == "ERR_IMAGE_DAMAGED");
  REQUIRE(unlink(part.c_str()) == 0);
  REQUIRE(rename((dir.path() + "/aside").c_str(), part.c_str()) == 0);
  REQUIRE(unlink(sums.c_str()) == 0);
  CHECK(outcome(&named) == "ERR_IMAGE_DAMAGED");
  CHECK(named == "pages.sum");
}

TEST_CASE("a manifest that promises impossible parts is refused") {
  const TemporaryDirectory dir;
  Random random(10);
  (void)store_pages(dir, {random_page(random)});
  CHECK(code_of([&] { const PageFile f(dir.fd(), {kPartPages + 1}); }) == "BadValue");
  CHECK(code_of([&] { const PageFile f(dir.fd(), {~uint64_t{0}}); }) == "BadValue");
  CHECK(code_of([&] { const PageFile f(dir.fd(), {2}); }) == "ERR_IMAGE_DAMAGED");
  CHECK(code_of([&] { const PageFile f(dir.fd(), {}); }) == "ERR_IMAGE_DAMAGED");
  CHECK(code_of([&] { const PageFile f(dir.fd(), {0, 1}); }) == "ERR_IMAGE_DAMAGED");
}

TEST_CASE("verifying stops when it is told to") {
  const TemporaryDirectory dir;
  Random random(11);
  const auto parts = store_pages(dir, {random_page(random)});
  const std::atomic<bool> stop = true;
  CHECK(code_of([&] { PageFile(dir.fd(), parts).verify(2, stop); }) == "ERR_ABORTED");
}
