// sys/: what /proc says, read as if an enemy had written it; files and their failures.
#include "sys/proc.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>

#include "base/error.h"
#include "base/value.h"
#include "sys/clocks.h"
#include "sys/file.h"
#include "test/support.h"

using namespace virt;
using virt::test::Child;
using virt::test::TemporaryDirectory;

namespace {

// Fields 3 … 52 of proc(5); each says its own number where that may be, so that a wrong one is noticed.
std::string stat_text(const std::string& comm, const std::string& state = "S") {
  std::string text = "17 (" + comm + ") " + state;
  for (int field = 4; field <= 52; ++field) text += " " + std::to_string(field);
  return text + "\n";
}

std::optional<ProcStat> stat_of(const std::string& text) {
  const TemporaryDirectory dir;
  (void)dir.write("stat", text);
  return try_read_stat(dir.path());
}

}  // namespace

TEST_CASE("every field of stat is taken from its own place") {
  const auto s = stat_of(stat_text("sh", "T"));
  REQUIRE(s);
  CHECK(s->comm == "sh");
  CHECK(s->state == 'T');
  CHECK(s->ppid == 4);
  CHECK(s->pgrp == 5);
  CHECK(s->session == 6);
  CHECK(s->tty_nr == 7);
  CHECK(s->threads == 20);
  CHECK(s->start_ticks == 22);
  CHECK(s->start_code == 26);
  CHECK(s->end_code == 27);
  CHECK(s->start_stack == 28);
  CHECK(s->start_data == 45);
  CHECK(s->end_data == 46);
  CHECK(s->start_brk == 47);
  CHECK(s->arg_start == 48);
  CHECK(s->arg_end == 49);
  CHECK(s->env_start == 50);
  CHECK(s->env_end == 51);
  CHECK(s->exit_code == 52);
}

TEST_CASE("a name may hold anything a program can call itself") {
  for (const std::string comm : {")", "(", "a) R 1 (b", ") ) )", " ", "", "a\nb", "\xff\xfe", "x) S 9 9 9"}) {
    CAPTURE(comm);
    const auto s = stat_of(stat_text(comm));
    REQUIRE(s);
    CHECK(s->comm == comm);
    CHECK(s->state == 'S');
    CHECK(s->ppid == 4);
    CHECK(s->exit_code == 52);
  }
}

TEST_CASE("a program that really calls itself so") {
  test::Shared<int> named;
  const Child child([&named] {
    prctl(PR_SET_NAME, "x) R 0 (y) Z");
    *named = 1;
    for (;;) pause();
    return 0;
  });
  while (*named == 0) test::sleep_us(1000);
  const auto s = try_read_stat(proc_path(child.pid(), ""));
  REQUIRE(s);
  CHECK(s->comm == "x) R 0 (y) Z");
  CHECK(s->ppid == getpid());
  CHECK(s->pgrp == getpgrp());
  CHECK(s->session == getsid(0));
  CHECK(s->threads == 1);
  const auto status = try_read_status(proc_path(child.pid(), ""));
  REQUIRE(status);
  CHECK(status->number("PPid") == static_cast<uint64_t>(getpid()));
  CHECK(status->numbers("Uid") == std::vector<uint64_t>(4, getuid()));
}

TEST_CASE("stat that is cut off or no stat is refused, one that is gone is nothing") {
  const std::string whole = stat_text("a) b");
  // Without its last field, or anything before it; a number that lost its last digits cannot be noticed.
  const size_t last = whole.rfind(" 52");
  for (size_t size = 0; size <= last; ++size) {
    CAPTURE(size);
    CHECK_THROWS_AS((void)stat_of(whole.substr(0, size)), BadValue);
  }
  CHECK_THROWS_AS((void)stat_of("17 )sh( S 1 2"), BadValue);
  std::string letters = whole;
  letters.replace(letters.find(" 22 "), 4, " xx ");
  CHECK_THROWS_AS((void)stat_of(letters), BadValue);
  std::string huge = whole;
  huge.replace(huge.find(" 22 "), 4, " 99999999999999999999999 ");
  CHECK_THROWS_AS((void)stat_of(huge), BadValue);
  CHECK_THROWS_AS((void)stat_of(std::string(1 << 17, 'x')), OsError);
  const TemporaryDirectory empty;
  CHECK(!try_read_stat(empty.path()));
  CHECK(!try_read_stat("/proc/4194305"));
}

TEST_CASE("fields by name, the first of several, all of several") {
  const ProcFields f(
      "Name:\ta: b:c\nlock:\t1: POSIX\nEmpty:\nlock:\t2: FLOCK\nno colon here\n:\tnameless\nLast: 5 kB");
  CHECK(f.find("Name") == "a: b:c");
  CHECK(f.find("Empty") == "");
  CHECK(f.find("") == "nameless");
  CHECK(!f.find("no colon here"));
  CHECK(!f.find("name"));
  CHECK(f.find("lock") == "1: POSIX");
  CHECK(f.all("lock") == std::vector<std::string_view>{"1: POSIX", "2: FLOCK"});
  CHECK(f.all("none").empty());
  CHECK(f.number("Last") == 5);
  CHECK(!f.number("none"));
  CHECK_THROWS_AS((void)f.number("Name"), BadValue);
  CHECK_THROWS_AS((void)f.number("Empty"), BadValue);
  CHECK(f.numbers("Empty").empty());
  CHECK_THROWS_AS((void)f.numbers("lock"), BadValue);
}

TEST_CASE("fields outlive the text they were read from, and copies of them too") {
  ProcFields f("");
  {
    std::string text = "flags:\t02100002\npos:\t12\n";
    const ProcFields first(text);
    text.assign(text.size(), 'x');
    f = first;
  }
  CHECK(f.number("flags", 8) == 02100002);
  const ProcFields moved = std::move(f);
  CHECK(moved.number("pos") == 12);
}

TEST_CASE("numbers are whole and nothing else") {
  CHECK(parse_number("0") == 0);
  CHECK(parse_number("18446744073709551615") == ~uint64_t{0});
  CHECK(parse_number("-1") == ~uint64_t{0});
  CHECK(parse_number("ff", 16) == 255);
  CHECK(parse_number("0xff", 16) == 255);
  CHECK(parse_number("0777", 8) == 0777);
  for (const char* bad : {"", "-", "+1", " 1", "1 ", "1x", "0x1", "18446744073709551616", "--1"}) {
    CAPTURE(bad);
    CHECK(!parse_number(bad));
  }
  CHECK(!parse_number("-1", 16));
  CHECK(!parse_number("0x", 16));
  CHECK(!parse_number("9", 8));
}

TEST_CASE("limits are those that getrlimit gives, in its order") {
  const auto limits = try_read_limits("/proc/self");
  REQUIRE(limits);
  for (size_t which = 0; which < limits->size(); ++which) {
    rlimit64 now{};
    REQUIRE(prlimit64(0, static_cast<__rlimit_resource>(which), nullptr, &now) == 0);
    CHECK((*limits)[which].first == now.rlim_cur);
    CHECK((*limits)[which].second == now.rlim_max);
  }
  CHECK_FALSE(try_read_limits("/proc/0"));
}

TEST_CASE("words are what lies between blanks") {
  CHECK(split_words("").empty());
  CHECK(split_words(" \t\n ").empty());
  CHECK(split_words(" a\tbc \n d") == std::vector<std::string_view>{"a", "bc", "d"});
}

TEST_CASE("a zombie is seen as one") {
  Child child([] { return 7; });
  std::optional<ProcStat> s;
  do s = try_read_stat(proc_path(child.pid(), ""));
  while (s && s->state != 'Z');
  REQUIRE(s);
  CHECK(s->exit_code == 7 << 8);
  // A zombie's descriptors are root's (task_dump_owner() in the kernel): others are refused.
  try {
    const bool listed = try_list_numbers(proc_path(child.pid(), "fd")).has_value();
    CHECK(listed);
  } catch (const OsError& e) {
    CHECK(geteuid() != 0);
    CHECK(e.error() == EACCES);
  }
  const int pid = child.pid();
  (void)child.wait();
  CHECK(!try_read_stat(proc_path(pid, "")));
  CHECK(!try_read_status(proc_path(pid, "")));
}

TEST_CASE("files: what is gone is nothing, what is refused is an error with the path") {
  const TemporaryDirectory dir;
  const std::string path = dir.write("f", "0123456789");
  CHECK(read_file(path) == "0123456789");
  CHECK(read_file(path, 10) == "0123456789");
  try {
    (void)read_file(path, 9);
    FAIL("a file over the limit was read");
  } catch (const OsError& e) {
    CHECK(e.error() == EFBIG);
    CHECK(e.where().path == path);
  }
  const std::string large(300'000, 'y');
  CHECK(read_file(dir.write("g", large)) == large);
  CHECK(!try_read_file(dir.path() + "/none"));
  CHECK_THROWS_AS((void)read_file(dir.path() + "/none"), OsError);
  CHECK_THROWS_AS((void)try_read_file(dir.path()), OsError);  // EISDIR
  CHECK(!try_read_link(dir.path() + "/none"));
  CHECK_THROWS_AS((void)try_read_link(path), OsError);  // EINVAL
  REQUIRE(symlink("to/nowhere", (dir.path() + "/l").c_str()) == 0);
  CHECK(read_link(dir.path() + "/l") == "to/nowhere");
  CHECK(try_list_names(dir.path())->size() == 3);
  CHECK(!try_list_names(dir.path() + "/none"));
  CHECK_THROWS_AS((void)try_list_names(path), OsError);  // ENOTDIR
  for (const char* name : {"10", "9", "1x", "-5", "99999999999"}) (void)dir.write(name, "");
  CHECK(try_list_numbers(dir.path()) == std::vector<int>{-5, 9, 10});
}

TEST_CASE("reads and writes of a size do all of it or fail") {
  const TemporaryDirectory dir;
  const UniqueFd fd = open_file(dir.path() + "/f", O_RDWR | O_CREAT, 0600);
  CHECK((fcntl(fd.get(), F_GETFD) & FD_CLOEXEC) != 0);
  write_exactly(fd.get(), "hello", 5, 100, "writing");
  char back[5];
  read_exactly(fd.get(), back, 5, 100, "reading");
  CHECK(std::string_view(back, 5) == "hello");
  try {
    read_exactly(fd.get(), back, 5, 103, "reading");
    FAIL("more was read than there is");
  } catch (const OsError& e) {
    CHECK(e.error() == ENODATA);
  }
  const rlimit limit{50, 50};
  Child child([&] {
    // A file size limit stands in for a full disk.
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &limit);
    try {
      write_exactly(fd.get(), back, 5, 48, "writing");
    } catch (const OsError& e) {
      return e.error() == EFBIG ? 0 : 1;
    }
    return 2;
  });
  CHECK(child.wait() == 0);
}

TEST_CASE("the host's clocks are this process's clocks less its namespace's offset") {
  timespec now{};
  clock_gettime(CLOCK_BOOTTIME, &now);
  const int64_t before = int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
  const int64_t ours = host_clock_ns(Clock::boottime) + clock_offset_ns(getpid(), Clock::boottime);
  CHECK(ours >= before);
  CHECK(ours < before + 60'000'000'000);
  CHECK(clock_offset_ns(4194305, Clock::monotonic) == 0);
}
