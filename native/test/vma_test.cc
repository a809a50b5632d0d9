// memory/vma: /proc/PID/smaps, our own and hostile ones.
#include "memory/vma.h"

#include <doctest/doctest.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/value.h"
#include "sys/file.h"

using namespace virt;

namespace {

const std::string kHeader =
    "55d0c0000000-55d0c0002000 rw-s 00003000 fe:01 1234      /usr/bin/a b (deleted)\n";

const Vma* at(const std::vector<Vma>& all, const void* address) {
  const auto a = reinterpret_cast<uint64_t>(address);
  for (const Vma& v : all) {
    if (v.start <= a && a < v.end) return &v;
  }
  return nullptr;
}

}  // namespace

TEST_CASE("one mapping, every field") {
  const auto all =
      parse_smaps(kHeader +
                  "Size:                  8 kB\nAnonHugePages:      2048 kB\nShmemPmdMapped:     1024 kB\n"
                  "Swap:                 12 kB\nSwapPss:             99 kB\nProtectionKey:         3\n"
                  "VmFlags: rd wr mr mw sd \n");
  REQUIRE(all.size() == 1);
  const Vma& v = all[0];
  CHECK(v.start == 0x55d0c0000000);
  CHECK(v.end == 0x55d0c0002000);
  CHECK(v.size() == 0x2000);
  CHECK(v.protection == (PROT_READ | PROT_WRITE));
  CHECK(v.shared);
  CHECK(v.offset == 0x3000);
  CHECK(v.major == 0xfe);
  CHECK(v.minor == 1);
  CHECK(v.inode == 1234);
  CHECK(v.path == "/usr/bin/a b (deleted)");
  CHECK(v.swap_bytes == 12 * 1024);
  CHECK(v.huge_bytes == 3072 * 1024);
  CHECK(v.protection_key == 3);
  CHECK(v.flags == std::vector<std::string>{"rd", "wr", "mr", "mw", "sd"});
  CHECK(v.has("mw"));
  CHECK(!v.has("lo"));
  CHECK(v.backed());
}

TEST_CASE("maps without the details, and without a last newline") {
  const auto all = parse_smaps(
      "1000-2000 ---p 00000000 00:00 0 \n2000-3000 r-xp 00000000 00:00 0                  [vdso]\n"
      "3000-4000 -w-s 00000000 00:01 0          /SYSV00000000 (deleted)");
  REQUIRE(all.size() == 3);
  CHECK(all[0].path.empty());
  CHECK(all[0].protection == PROT_NONE);
  CHECK(!all[0].backed());
  CHECK(all[1].path == "[vdso]");
  CHECK(!all[1].backed());
  CHECK_MESSAGE(all[2].backed(), "a System V segment with id 0 has inode 0");
  CHECK(parse_smaps("").empty());
  CHECK(parse_smaps("\n\n").empty());
}

TEST_CASE("only the kernel's own escape is undone in a path") {
  CHECK(unescape_path("/a\\012b") == "/a\nb");
  CHECK(unescape_path("/a\\040\\01") == "/a\\040\\01");
  CHECK(unescape_path("\\012\\012") == "\n\n");
  CHECK(unescape_path("").empty());
}

TEST_CASE("paths that look like something else") {
  for (const char* path :
       {"/x VmFlags: lo", "/dash-dash", "/Swap: 5 kB", "//", "/[vdso]", "[anon:a b]", "socket:[1]"}) {
    CAPTURE(path);
    const auto all = parse_smaps("1000-2000 r--p 00000000 00:00 7 " + std::string(path) + "\nVmFlags: rd\n");
    REQUIRE(all.size() == 1);
    CHECK(all[0].path == path);
    CHECK(all[0].flags == std::vector<std::string>{"rd"});
  }
}

TEST_CASE("lines that no kernel writes are refused") {
  for (const char* bad : {
           "1000 r--p 00000000 00:00 0\n",                          // no end
           "-2000 r--p 00000000 00:00 0\n",                         // no start
           "1000- r--p 00000000 00:00 0\n",                         //
           "2000-1000 r--p 00000000 00:00 0\n",                     // backwards
           "1000-1000 r--p 00000000 00:00 0\n",                     // empty
           "1000-2000 r--px 00000000 00:00 0\n",                    // protection too long
           "1000-2000 r-p 00000000 00:00 0\n",                      // or too short
           "1000-2000 r--p 0000000g 00:00 0\n",                     //
           "1000-2000 r--p 00000000 0000 0\n",                      // device without colon
           "1000-2000 r--p 00000000 00:00 \n",                      // no inode
           "1000-2000 r--p 00000000 00:00 x\n",                     //
           "1000-2000 r--p 00000000\n",                             // cut off
           "1000-2000\n",                                           //
           "10000000000000000-20000000000000000 r--p 0 00:00 0\n",  // more than 64 bits
           "1000-3000 r--p 0 00:00 0\n2000-4000 r--p 0 00:00 0\n",  // overlapping
           "3000-4000 r--p 0 00:00 0\n1000-2000 r--p 0 00:00 0\n",  // not ascending
           "Size: 4 kB\n1000-2000 r--p 0 00:00 0\n",                // details before any mapping
           "1000-2000 r--p 0 00:00 0\nSwap: many kB\n",             //
           "1000-2000 r--p 0 00:00 0\nProtectionKey: -\n",          //
           "1000-2000 r--p 0 00:00 0\n\xff\n",                      //
       }) {
    CAPTURE(bad);
    CHECK_THROWS_AS((void)parse_smaps(bad), BadValue);
  }
  // The error does not carry a hostile line of any length along.
  try {
    (void)parse_smaps("zz" + std::string(1 << 20, 'z'));
    FAIL("nonsense was taken");
  } catch (const BadValue& e) {
    CHECK(std::string(e.what()).size() < 400);
  }
}

TEST_CASE("our own mappings") {
  const size_t page = 4096;
  auto* p = static_cast<char*>(
      mmap(nullptr, 4 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  REQUIRE(p != MAP_FAILED);
  REQUIRE(mprotect(p + page, page, PROT_NONE) == 0);
  REQUIRE(madvise(p + 2 * page, page, MADV_DONTFORK) == 0);
  const auto all = parse_smaps(read_file("/proc/self/smaps", size_t{256} << 20));
  CHECK(at(all, p)->end == reinterpret_cast<uint64_t>(p + page));
  CHECK(at(all, p)->has("nr"));
  CHECK(at(all, p + page)->protection == PROT_NONE);
  CHECK(at(all, p + 2 * page)->has("dc"));
  CHECK(!at(all, p + 3 * page)->has("dc"));
  CHECK(at(all, reinterpret_cast<const void*>(&parse_smaps))->protection == (PROT_READ | PROT_EXEC));
  int on_stack = 0;
  CHECK(at(all, &on_stack) != nullptr);
  munmap(p, 4 * page);
}
