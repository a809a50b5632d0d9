// checkpoint/rebuild_huge: which pages come back in huge pages.
#include <doctest/doctest.h>

#include "checkpoint/rebuild_huge.h"
#include "memory/scan.h"

using namespace virt;

namespace {

constexpr uint64_t kPages = kHugeBytes / kPageBytes;

uint64_t pages_in(const std::vector<PageRun>& runs) {
  uint64_t n = 0;
  for (const PageRun& r : runs) n += r.count;
  return n;
}

}  // namespace

TEST_CASE("whole blocks that are full are parted from the rest") {
  // From the middle of block 10 to the middle of block 13.
  const uint64_t start = 10 * kHugeBytes + kHugeBytes / 2, end = 13 * kHugeBytes + kHugeBytes / 2;
  const auto parted = part_runs({{start, 3 * kPages, 100}}, start, end);
  REQUIRE(parted.huge.size() == 1);
  CHECK(parted.huge[0].start == 11 * kHugeBytes);
  CHECK(parted.huge[0].count == 2 * kPages);
  CHECK(parted.huge[0].index == 100 + kPages / 2);
  REQUIRE(parted.small.size() == 2);
  CHECK(parted.small[0].start == start);
  CHECK(parted.small[0].count == kPages / 2);
  CHECK(parted.small[1].start == 13 * kHugeBytes);
  CHECK(parted.small[1].index == 100 + 2 * kPages + kPages / 2);
}

TEST_CASE("a block in several runs is full or not") {
  const uint64_t at = 5 * kHugeBytes;
  const PageRun first{at, 10, 7}, rest{at + 10 * kPageBytes, kPages - 10, 400};
  auto parted = part_runs({first, rest}, at, at + kHugeBytes);
  CHECK(pages_in(parted.huge) == kPages);
  CHECK(parted.huge.size() == 2);
  CHECK(parted.small.empty());
  PageRun short_rest = rest;
  --short_rest.count;
  parted = part_runs({first, short_rest}, at, at + kHugeBytes);
  CHECK(parted.huge.empty());
  CHECK(pages_in(parted.small) == kPages - 1);
}

TEST_CASE("what was a huge page is one again, zeros left out or not") {
  const uint64_t at = 5 * kHugeBytes;
  PageRun some{at + 3 * kPageBytes, 2, 0};
  some.huge = true;
  CHECK(pages_in(part_runs({some}, at, at + kHugeBytes).huge) == 2);
  CHECK(part_runs({some}, at, at + kHugeBytes - kPageBytes).huge.empty());
}

TEST_CASE("the stage joins neighbours and keeps strangers apart") {
  const std::vector<PageRun> runs{{2 * kHugeBytes, 2 * kPages, 0},
                                  {4 * kHugeBytes + kPageBytes, 1, 5000},
                                  {9 * kHugeBytes, kPages, 9000}};
  const auto placed = HugeStage(runs).placed();
  REQUIRE(placed.size() == 3);
  CHECK(placed[0].start == 0);
  CHECK(placed[1].start == 2 * kHugeBytes + kPageBytes);
  CHECK(placed[2].start == 3 * kHugeBytes);
  CHECK(placed[2].index == 9000);
}
