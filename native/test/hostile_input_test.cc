// Every parser of foreign input against thousands of damaged inputs: each is taken or refused with BadValue,
// and the sanitizers see to the rest. The seeds are fixed; a failure names its own.
#include <doctest/doctest.h>

#include "arch/vdso.h"
#include "arch/xstate.h"
#include "base/error.h"
#include "base/value.h"
#include "init/protocol.h"
#include "memory/vma.h"
#include "sys/file.h"
#include "sys/proc.h"
#include "test/support.h"

using namespace virt;
using virt::test::damaged;
using virt::test::Random;

namespace {

constexpr uint64_t kRounds = 10'000;

// Gives damaged copies of `whole` to `parse`, which may throw BadValue and nothing else. Some must be refused
// and some taken: otherwise the damage is too coarse, or nothing is looked at.
template <typename Parse>
void attack(const std::string& whole, Parse parse, uint64_t rounds = kRounds) {
  CHECK_NOTHROW(parse(whole));
  uint64_t taken = 0, refused = 0;
  for (uint64_t seed = 1; seed <= rounds; ++seed) {
    Random random(seed);
    const std::string input = damaged(whole, random);
    try {
      parse(input);
      ++taken;
    } catch (const BadValue&) {
      ++refused;
    } catch (const std::exception& e) {
      FAIL("seed ", seed, ": ", e.what());
    }
  }
  CHECK(taken > 0);
  CHECK(refused > 0);
}

void must_decode(bool decoded) {
  if (!decoded) throw BadValue("refused");
}

}  // namespace

TEST_CASE("smaps") {
  std::string text = read_file("/proc/self/smaps", size_t{256} << 20);
  text.resize(text.rfind('\n', 6000) + 1);
  attack(text, [](const std::string& input) {
    uint64_t end = 0;
    for (const Vma& v : parse_smaps(input)) {
      if (v.start < end || v.end <= v.start) throw std::runtime_error("mappings that overlap");
      end = v.end;
    }
  });
}

TEST_CASE("stat") {
  const test::TemporaryDirectory dir;
  attack(
      read_file("/proc/self/stat"),
      [&dir](const std::string& input) {
        (void)dir.write("stat", input);
        (void)try_read_stat(dir.path());
      },
      kRounds / 10);
}

TEST_CASE("status") {
  const std::string text = read_file("/proc/self/status");
  attack(text, [](const std::string& input) {
    const ProcFields f(input);
    for (const char* key : {"PPid", "TracerPid", "Threads", "Seccomp", "Seccomp_filters"})
      (void)f.number(key);
    for (const char* key : {"SigCgt", "SigPnd", "ShdPnd", "CapBnd"}) (void)f.number(key, 16);
    for (const char* key : {"NSpid", "Uid", "Gid", "Groups"}) (void)f.numbers(key);
    (void)f.number("Umask", 8);
  });
}

TEST_CASE("fdinfo") {
  attack(
      "pos:\t12\nflags:\t02100002\nmnt_id:\t15\nino:\t44\nlock:\t1: POSIX  ADVISORY  WRITE 77 fe:01:1234 0 "
      "EOF\n"
      "tfd:        5 events: 80000019 data: 7fffffff00000005  pos:0 ino:61 sdev:e\nclockid: 1\nticks: 0\n"
      "settime flags: 03\nit_value: (0, 49406829)\nit_interval: (1, 0)\neventfd-count:               "
      "1c\nsigmask:\t"
      "0000000000004002\n",
      [](const std::string& input) {
        const ProcFields f(input);
        (void)f.number("flags", 8);
        (void)f.number("pos");
        (void)f.number("clockid");
        (void)f.number("ticks");
        (void)f.number("eventfd-count", 16);
        (void)f.number("sigmask", 16);
        for (const std::string_view line : f.all("tfd")) {
          for (const std::string_view word : split_words(line)) (void)parse_number(word, 16);
        }
        for (const std::string_view line : f.all("lock")) (void)split_words(line);
      });
}

TEST_CASE("a launch plan") {
  protocol::LaunchPlan plan;
  plan.state_dir = "/state";
  plan.remaps = {{"/a", "/b"}, {"/c", "/d"}};
  plan.argv = {"a", "bc", "def"};
  plan.env = std::vector<std::string>(20, "A=1");
  attack(protocol::encode(plan), [](const std::string& input) {
    protocol::LaunchPlan out;
    must_decode(protocol::decode(input, &out));
  });
}

TEST_CASE("an exec plan") {
  protocol::ExecPlan plan;
  plan.cwd = "/somewhere";
  plan.argv = {"a", "bc"};
  plan.env = {"A=1", "B=2"};
  attack(protocol::encode(plan), [](const std::string& input) {
    protocol::ExecPlan out;
    must_decode(protocol::decode(input, &out));
  });
}

TEST_CASE("a status") {
  protocol::Status status;
  status.streams = std::vector<protocol::Status::Stream>(6);
  attack(protocol::encode(status), [](const std::string& input) {
    protocol::Status out;
    must_decode(protocol::decode(input, &out));
  });
}

TEST_CASE("a vDSO") {
  const std::string own = test::own_vdso();
  const auto try_all = [&own](const std::string& input) {
    const auto [start, room] = vdso_tail(input);
    if (start + room > input.size() && room != 0) throw std::runtime_error("a tail outside");
    (void)same_vdso(own, input);
    for (const VdsoPatch& p : redirect_vdso(input, own, 0x1000)) {
      if (p.offset + p.bytes.size() > input.size()) throw std::runtime_error("a patch outside");
    }
  };
  attack(own, try_all, kRounds / 2);
  // Only the headers damaged, so that more of it is reached.
  attack(
      own,
      [&](const std::string& input) {
        try_all(input.substr(0, std::min<size_t>(input.size(), 1024)) + own.substr(1024));
      },
      kRounds / 2);
}

TEST_CASE("a processor state") {
  XstateLayout from, to;
  from.components = {{2, {576, 256}}, {9, {2688, 8}}};
  to.components = {{2, {640, 256}}, {9, {1024, 8}}};
  std::string state(2696, 'x');
  state.replace(512, 64, std::string(64, '\0'));
  state[512] = 7;
  state[513] = 2;
  attack(state, [&](const std::string& input) {
    try {
      (void)convert_xstate(input, from, to);
    } catch (const OsError&) {
      throw BadValue("a component this CPU lacks");
    }
  });
}
