// base/: plain data, errors and their texts, fault points, work shared among threads.
#include <doctest/doctest.h>
#include <sys/wait.h>

#include <atomic>
#include <cstdlib>
#include <limits>
#include <set>

#include "base/error.h"
#include "base/fault.h"
#include "base/parallel.h"
#include "base/scope_exit.h"
#include "base/value.h"
#include "test/support.h"

using namespace virt;
using virt::test::Child;

TEST_CASE("a value knows what it is and refuses to be anything else") {
  const struct {
    Value value;
    const char* is;
  } all[] = {{Value(), "null"},       {Value(true), "bool"},           {Value(7), "int"},
             {Value("text"), "text"}, {Value::bytes("b", 1), "bytes"}, {Value::list(), "list"},
             {Value::map(), "map"}};
  for (const auto& [value, is] : all) {
    CAPTURE(is);
    const std::string_view what = is;
    CHECK(value.is_null() == (what == "null"));
    CHECK(value.is_bool() == (what == "bool"));
    CHECK(value.is_int() == (what == "int"));
    CHECK(value.is_string() == (what == "text"));
    CHECK(value.is_bytes() == (what == "bytes"));
    CHECK(value.is_list() == (what == "list"));
    CHECK(value.is_map() == (what == "map"));
    if (what != "bool") CHECK_THROWS_AS((void)value.as_bool(), BadValue);
    if (what != "int") CHECK_THROWS_AS((void)value.as_int(), BadValue);
    if (what != "text") CHECK_THROWS_AS((void)value.as_string(), BadValue);
    if (what != "bytes") CHECK_THROWS_AS((void)value.as_bytes(), BadValue);
    if (what != "list") CHECK_THROWS_AS((void)value.as_list(), BadValue);
    if (what != "map") CHECK_THROWS_AS((void)value.as_map(), BadValue);
  }
}

TEST_CASE("numbers are checked against their limits, both ends included") {
  CHECK(Value(5).as_int(5, 5) == 5);
  CHECK(Value(-3).as_int(-3, 8) == -3);
  CHECK_THROWS_WITH_AS((void)Value(4).as_int(5, 9), "expected a number from 5 to 9, found 4", BadValue);
  CHECK_THROWS_AS((void)Value(10).as_int(5, 9), BadValue);
  CHECK(Value(std::numeric_limits<int64_t>::min()).as_int() == std::numeric_limits<int64_t>::min());
}

TEST_CASE("masks of 64 bits survive as text") {
  for (const uint64_t mask : {uint64_t{0}, uint64_t{1}, uint64_t{0x8000000000000000}, ~uint64_t{0}}) {
    CHECK(Value::hex(mask).as_hex() == mask);
  }
  for (const char* bad :
       {"", "0", "0x", "1f", "0xG", "0x12345678901234567", "0xABC", " 0x1", "0x1 ", "-0x1"}) {
    CAPTURE(bad);
    CHECK_THROWS_AS((void)Value(bad).as_hex(), BadValue);
  }
}

TEST_CASE("a record keeps its members in order, each once") {
  Value v;  // null becomes a record with its first member
  v.set("b", 1).set("a", 2).set("b", 3);
  REQUIRE(v.as_map().size() == 2);
  CHECK(v.as_map()[0].first == "b");
  CHECK(v.at("b").as_int() == 3);
  CHECK(v.find("c") == nullptr);
  CHECK_THROWS_WITH_AS((void)v.at("c"), "member 'c' is missing", BadValue);
  CHECK(v.get_int("c", 9) == 9);
  CHECK(v.get_bool("c", true));
  CHECK(v.get_string("c", "else") == "else");
  CHECK_THROWS_AS((void)v.get_string("a", ""), BadValue);
  v.set("n", Value());
  CHECK_MESSAGE(v.find("n") == nullptr, "a member that is null counts as missing");
  Value list = Value::list();
  CHECK_THROWS_AS(list.set("x", 1), BadValue);
  CHECK_THROWS_AS(v.push(1), BadValue);
  CHECK_THROWS_AS((void)list.find("x"), BadValue);
}

TEST_CASE("an error says what failed, of whom, and why") {
  OsError e("pidfd_getfd", EPERM, "taking a handle");
  CHECK(std::string(e.what()) == "taking a handle: pidfd_getfd: Operation not permitted");
  e.in_process(7).on_fd(3).of_kind("pipe").at_path("pipe:[12]").during("survey");
  CHECK(std::string(e.what()) ==
        "taking a handle, pid 7, fd 3 (pipe), pipe:[12]: pidfd_getfd: Operation not permitted");
  // Whoever was nearer knew better.
  e.in_process(8).on_fd(4).of_kind("x").at_path("y").during("z");
  CHECK(e.where().pid == 7);
  CHECK(e.where().fd == 3);
  CHECK(e.where().kind == "pipe");
  CHECK(e.where().path == "pipe:[12]");
  CHECK(e.where().phase == "survey");
  e.attach("and then the disk was full");
  CHECK(e.attached().size() == 1);
  CHECK(e.code() == "ERR_SYSCALL");
  const OsError named("ERR_TRACED", "ptrace", 0, "it has a debugger");
  CHECK_MESSAGE(std::string(named.what()) == "it has a debugger", "without an errno no call is told");
  CHECK(errno_name(EPERM) == "EPERM");
  CHECK(errno_name(4321) == "errno 4321");
}

TEST_CASE("check() takes errno with it before anything else can change it") {
  errno = ENOSPC;
  try {
    check(-1, "write", "writing");
    FAIL("nothing was thrown");
  } catch (const OsError& e) {
    CHECK(e.error() == ENOSPC);
    CHECK(e.call() == "write");
  }
  CHECK(check(5, "write", "writing") == 5);
}

TEST_CASE("a clean-up runs however its scope is left") {
  int ran = 0;
  {
    const ScopeExit a([&] { ++ran; });
  }
  CHECK(ran == 1);
  try {
    const ScopeExit a([&] { ++ran; });
    throw 1;
  } catch (int) {
  }
  CHECK(ran == 2);
  {
    ScopeExit a([&] { ++ran; });
    a.dismiss();
  }
  CHECK(ran == 2);
}

TEST_CASE("a fault point fails only where it is asked to") {
  const auto ends = [](const char* setting) {
    Child child([setting] {
      setenv("VIRT_RUN_FAULT", setting, 1);
      try {
        fault_point("here");
      } catch (const OsError& e) {
        return e.code() == "ERR_FAULT" && e.error() == EIO ? 42 : 43;
      }
      return 0;
    });
    return child.wait();
  };
  CHECK(WEXITSTATUS(ends("elsewhere")) == 0);
  CHECK(WEXITSTATUS(ends("her")) == 0);
  CHECK(WEXITSTATUS(ends("heree:kill")) == 0);
  CHECK(WEXITSTATUS(ends("here")) == 42);
  CHECK(WEXITSTATUS(ends("here:error")) == 42);
  const int killed = ends("here:kill");
  CHECK(WIFSIGNALED(killed));
  CHECK(WTERMSIG(killed) == SIGKILL);
}

TEST_CASE("a fault point that hangs does nothing more") {
  Child child([] {
    setenv("VIRT_RUN_FAULT", "here:hang", 1);
    fault_point("here");
    return 0;
  });
  test::sleep_us(50'000);
  CHECK(child.alive());
}

TEST_CASE("every piece of shared work is done once") {
  for (const unsigned threads : {0U, 1U, 2U, 7U}) {
    for (const size_t pieces : {size_t{0}, size_t{1}, size_t{5}, size_t{1000}}) {
      std::vector<std::atomic<int>> done(pieces);
      std::atomic<unsigned> workers = 0;
      run_parallel(pieces, threads, [&] {
        ++workers;
        return [&](size_t i) { ++done[i]; };
      });
      CHECK(std::all_of(done.begin(), done.end(), [](const auto& n) { return n == 1; }));
      CHECK(workers <= std::max(1U, threads));
    }
  }
}

TEST_CASE("the first failure of shared work is thrown, and the rest is left undone") {
  std::atomic<int> done = 0;
  CHECK_THROWS_WITH_AS(run_parallel(100'000, 4,
                                    [&] {
                                      return [&](size_t i) {
                                        if (i == 10) throw OsError("read", EIO, "piece ten");
                                        ++done;
                                      };
                                    }),
                       "piece ten: read: Input/output error", OsError);
  CHECK(done < 100'000);
  CHECK_THROWS_AS(run_parallel(3, 3, []() -> std::function<void(size_t)> { throw Bug("no worker"); }), Bug);
}
