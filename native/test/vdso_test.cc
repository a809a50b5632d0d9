// arch/vdso: our own vDSO parsed, damaged and redirected.
#include "arch/vdso.h"

#include <doctest/doctest.h>
#include <elf.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <ctime>

#include "arch/agent.h"
#include "base/value.h"
#include "test/support.h"

using namespace virt;
using virt::test::own_vdso;

namespace {

// A copy of a vDSO that can be executed, at an address of its own.
class Placed {
 public:
  explicit Placed(const std::string& image) : size_(image.size()) {
    place_ =
        static_cast<char*>(mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    REQUIRE(place_ != MAP_FAILED);
    std::memcpy(place_, image.data(), size_);
  }
  Placed(const Placed&) = delete;
  Placed& operator=(const Placed&) = delete;
  ~Placed() { munmap(place_, size_); }
  void apply(const std::vector<VdsoPatch>& patches) {
    for (const VdsoPatch& p : patches) {
      REQUIRE(p.offset + p.bytes.size() <= size_);
      std::memcpy(place_ + p.offset, p.bytes.data(), p.bytes.size());
    }
    REQUIRE(mprotect(place_, size_, PROT_READ | PROT_EXEC) == 0);
  }
  template <typename F>
  F function(const std::string& image, const std::string& name) const {
    return reinterpret_cast<F>(place_ + vdso_functions(image).at(name));
  }

 private:
  char* place_;
  size_t size_;
};

// Everything a capture or rebuild asks of a foreign vDSO. True if all of it was taken.
bool parses(std::string_view image) {
  static const std::string own = own_vdso();
  try {
    (void)vdso_tail(image);
    for (const auto& [name, offset] : vdso_functions(image)) CHECK(offset < image.size());
    (void)same_vdso(image, own);
    for (const VdsoPatch& p : redirect_vdso(image, own, 0x1000))
      CHECK(p.offset + p.bytes.size() <= image.size());
    (void)redirect_vdso(own, image, 0x1000);
    return true;
  } catch (const BadValue&) {
    return false;
  }
}

using ClockGettime = int (*)(clockid_t, timespec*);

}  // namespace

TEST_CASE("our own vDSO has its functions, and room behind them") {
  const std::string image = own_vdso();
  const auto functions = vdso_functions(image);
  for (const char* name : {"__vdso_clock_gettime", "__vdso_gettimeofday", "__vdso_getcpu", "__vdso_time"}) {
    CAPTURE(name);
    CHECK(functions.contains(name));
  }
  const auto [start, room] = vdso_tail(image);
  CHECK(start % 16 == 0);
  CHECK(start + room == image.size());
  for (const auto& [name, offset] : functions) {
    CAPTURE(name);
    CHECK(offset < start);
  }
  CHECK_MESSAGE(room >= agent_code_size() + sizeof(AgentHeader) + sizeof(AgentCall) + 24,
                "enough for a first foothold");
}

TEST_CASE("the tail does not count when two are compared") {
  const std::string image = own_vdso();
  std::string other = image;
  CHECK(same_vdso(image, other));
  const auto [start, room] = vdso_tail(image);
  REQUIRE(room > 0);
  other[start] = 'x';
  CHECK(same_vdso(image, other));
  other = image;
  other[vdso_functions(image).at("__vdso_clock_gettime")] ^= 1;
  CHECK(!same_vdso(image, other));
  CHECK(!same_vdso(image, image + std::string(4096, '\0')));
}

TEST_CASE("a vDSO that is cut short is refused, wherever") {
  const std::string image = own_vdso();
  const auto [start, room] = vdso_tail(image);
  // The symbols come first: what is behind them (code) is not looked at by the parser.
  for (size_t size = 0; size < start; size += size < 0x400 ? 1 : 61) {
    CAPTURE(size);
    if (size < sizeof(Elf64_Ehdr)) CHECK(!parses(std::string_view(image).substr(0, size)));
    (void)parses(std::string_view(image).substr(0, size));
  }
  CHECK(!parses(""));
  CHECK(!parses(std::string(image.size(), '\0')));
  CHECK(!parses(std::string(image.size(), '\xff')));
  std::string other = image;
  other[EI_CLASS] = ELFCLASS32;
  CHECK(!parses(other));
  CHECK(parses(image));
}

TEST_CASE("headers with every field at its extremes never lead outside") {
  const std::string image = own_vdso();
  size_t taken = 0;
  // The ELF header and all program headers, then the dynamic section, eight and four bytes at a time.
  Elf64_Ehdr header;
  std::memcpy(&header, image.data(), sizeof header);
  std::vector<std::pair<size_t, size_t>> ranges{{0, header.e_phoff + header.e_phnum * sizeof(Elf64_Phdr)}};
  for (unsigned i = 0; i < header.e_phnum; ++i) {
    Elf64_Phdr p;
    std::memcpy(&p, image.data() + header.e_phoff + i * sizeof p, sizeof p);
    if (p.p_type == PT_DYNAMIC) ranges.emplace_back(p.p_offset, p.p_offset + p.p_filesz);
  }
  for (const auto& [from, to] : ranges) {
    for (size_t at = from; at + 8 <= to; at += 2) {
      for (const uint64_t value :
           {uint64_t{0}, uint64_t{1}, uint64_t{image.size()}, uint64_t{image.size()} - 1,
            uint64_t{0x7fffffffffffffff}, ~uint64_t{0}, ~uint64_t{0} - 63, ~uint64_t{0} - 7}) {
        for (const size_t width : {size_t{2}, size_t{4}, size_t{8}}) {
          std::string other = image;
          std::memcpy(other.data() + at, &value, width);
          taken += parses(other) ? 1 : 0;
        }
      }
    }
  }
  CHECK_MESSAGE(taken > 0, "many fields do not matter");
}

TEST_CASE("an old vDSO's functions lead to the new one's") {
  const std::string image = own_vdso();
  Placed old(image);
  old.apply(redirect_vdso(image, image, getauxval(AT_SYSINFO_EHDR)));
  const auto gettime = old.function<ClockGettime>(image, "__vdso_clock_gettime");
  for (const clockid_t clock : {CLOCK_MONOTONIC, CLOCK_REALTIME, CLOCK_BOOTTIME, CLOCK_PROCESS_CPUTIME_ID}) {
    timespec before{}, now{}, after{};
    REQUIRE(clock_gettime(clock, &before) == 0);
    REQUIRE(gettime(clock, &now) == 0);
    REQUIRE(clock_gettime(clock, &after) == 0);
    const auto ns = [](const timespec& t) { return int64_t{t.tv_sec} * 1'000'000'000 + t.tv_nsec; };
    CHECK(ns(before) <= ns(now));
    CHECK(ns(now) <= ns(after));
  }
  timespec unused{};
  CHECK(gettime(12345, &unused) == -EINVAL);
  unsigned cpu = ~0U, node = ~0U;
  REQUIRE(old.function<int (*)(unsigned*, unsigned*, void*)>(image, "__vdso_getcpu")(&cpu, &node, nullptr) ==
          0);
  CHECK(cpu < 4096);
  const time_t t = old.function<time_t (*)(time_t*)>(image, "__vdso_time")(nullptr);
  CHECK(std::abs(t - time(nullptr)) <= 1);
}

TEST_CASE("what the new vDSO lacks is answered by the system call, or ENOSYS") {
  const std::string image = own_vdso();
  // A new kernel's vDSO without a single function under an old name.
  std::string renamed = image;
  for (const auto& [name, offset] : vdso_functions(image)) {
    // Names may share an end ("time"): that is what changes.
    const size_t at = renamed.find(std::string(name, 0, name.size() - 1));
    REQUIRE(at != std::string::npos);
    renamed[at + name.size() - 1] = 'X';
  }
  for (const auto& [name, offset] : vdso_functions(renamed)) CHECK(!vdso_functions(image).contains(name));

  Placed old(image);
  old.apply(redirect_vdso(image, renamed, 0x123456789000));
  timespec before{}, now{};
  REQUIRE(clock_gettime(CLOCK_MONOTONIC, &before) == 0);
  REQUIRE(old.function<ClockGettime>(image, "__vdso_clock_gettime")(CLOCK_MONOTONIC, &now) == 0);
  CHECK(now.tv_sec - before.tv_sec <= 1);
  CHECK(std::abs(old.function<time_t (*)(time_t*)>(image, "__vdso_time")(nullptr) - time(nullptr)) <= 1);
  unsigned cpu = ~0U;
  REQUIRE(old.function<int (*)(unsigned*, unsigned*, void*)>(image, "__vdso_getcpu")(&cpu, nullptr,
                                                                                     nullptr) == 0);
  CHECK(cpu < 4096);

  Placed unknown(renamed);
  unknown.apply(redirect_vdso(renamed, image, 0x123456789000));
  CHECK(unknown.function<ClockGettime>(renamed, "__vdso_clock_gettimX")(CLOCK_MONOTONIC, &now) == -ENOSYS);
}
