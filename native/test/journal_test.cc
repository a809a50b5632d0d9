// interpose/journal: what lines look like, whatever names files have.
#include "interpose/journal.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>

#include "interpose/calls.h"

using namespace virt;

namespace {

std::string path_line(std::string_view path) { return JournalLine().text("path", path).done(); }

}  // namespace

TEST_CASE("a line is JSON, in the order of its members") {
  CHECK(JournalLine().text("kind", "create").number("pid", 2).number("port", -1).done() ==
        "{\"kind\":\"create\",\"pid\":2,\"port\":-1}\n");
  CHECK(JournalLine().done() == "{}\n");
}

TEST_CASE("quotes, controls and newlines are escaped") {
  CHECK(path_line("/a\"b\\c") == "{\"path\":\"/a\\\"b\\\\c\"}\n");
  CHECK(path_line("/a\nb\x01") == "{\"path\":\"/a\\u000ab\\u0001\"}\n");
}

TEST_CASE("text stays, what is no text is replaced byte by byte") {
  CHECK(path_line("/gr\xc3\xbc\xc3\x9f\x65 \xe2\x82\xac \xf0\x9f\x98\x80") ==
        "{\"path\":\"/gr\xc3\xbc\xc3\x9f\x65 \xe2\x82\xac \xf0\x9f\x98\x80\"}\n");
  const std::string mark = "\xef\xbf\xbd";
  // A lone continuation, an overlong slash, half a surrogate pair, beyond the last code point, cut off.
  for (const auto& [bytes, marks] : {std::pair<std::string, int>{"\x80", 1},
                                     {"\xc0\xaf", 2},
                                     {"\xed\xa0\x80", 3},
                                     {"\xf4\x90\x80\x80", 4},
                                     {"\xe2\x82", 2},
                                     {"\xff", 1}}) {
    std::string expected;
    for (int i = 0; i < marks; ++i) expected += mark;
    CHECK(path_line("/" + bytes) == "{\"path\":\"/" + expected + "\"}\n");
  }
}

TEST_CASE("times are RFC 3339") {
  CHECK(journal_time(0) == "1970-01-01T00:00:00.000Z");
  CHECK(journal_time(1'767'225'600'123'456'789) == "2026-01-01T00:00:00.123Z");
}

TEST_CASE("lines are appended, also by the next journal of the same directory") {
  char directory[] = "/tmp/virt-run-journal-XXXXXX";
  REQUIRE(mkdtemp(directory) != nullptr);
  const UniqueFd dir(open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  for (int i = 0; i < 2; ++i) {
    Journal journal(dir.get());
    journal.append(1, JournalLine().number("n", i));
    CHECK(journal.flush(UINT64_MAX));
  }
  const UniqueFd file(openat(dir.get(), "journal", O_RDONLY | O_CLOEXEC));
  char text[64] = "";
  CHECK(read(file.get(), text, sizeof text) == 16);
  CHECK(std::string(text) == "{\"n\":0}\n{\"n\":1}\n");
  struct stat st {};
  REQUIRE(fstat(file.get(), &st) == 0);
  CHECK((st.st_mode & 07777) == 0600);
  unlinkat(dir.get(), "journal", 0);
  rmdir(directory);
}

TEST_CASE("where there is no room for a whole line there is none of it") {
  char directory[] = "/tmp/virt-run-journal-XXXXXX";
  REQUIRE(mkdtemp(directory) != nullptr);
  const UniqueFd dir(open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  Journal journal(dir.get());
  const auto add = [&journal](const std::string& text) {
    journal.append(1, JournalLine().text("path", text));
    (void)journal.flush(UINT64_MAX);
  };
  add("first");
  rlimit before{};
  REQUIRE(getrlimit(RLIMIT_FSIZE, &before) == 0);
  rlimit small = before;
  small.rlim_cur = 30;  // the first line and the half of another
  const auto handler = signal(SIGXFSZ, SIG_IGN);
  REQUIRE(setrlimit(RLIMIT_FSIZE, &small) == 0);
  journal.append(1, JournalLine().text("path", "one that is lost"));
  CHECK_FALSE(journal.flush(UINT64_MAX));
  CHECK_FALSE(journal.flush(UINT64_MAX));  // it still is
  REQUIRE(setrlimit(RLIMIT_FSIZE, &before) == 0);
  signal(SIGXFSZ, handler);
  add("last");
  const UniqueFd file(openat(dir.get(), "journal", O_RDONLY | O_CLOEXEC));
  char text[256] = "";
  REQUIRE(read(file.get(), text, sizeof text - 1) > 0);
  const std::string found = text;
  CHECK(found.starts_with("{\"path\":\"first\"}\n{\"time\":"));
  CHECK(found.ends_with(R"("kind":"lost","result":"ENOSPC","lines":1})"
                        "\n{\"path\":\"last\"}\n"));
  unlinkat(dir.get(), "journal", 0);
  rmdir(directory);
}

TEST_CASE("lines are in the order of their calls, however late they are known") {
  char directory[] = "/tmp/virt-run-journal-XXXXXX";
  REQUIRE(mkdtemp(directory) != nullptr);
  const UniqueFd dir(open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  Journal journal(dir.get());
  for (const int order : {3, 1, 5, 2})
    journal.append(static_cast<uint64_t>(order), JournalLine().number("n", order));
  CHECK(journal.flush(3));
  CHECK(journal.waits());
  journal.append(4, JournalLine().number("n", 4));
  CHECK(journal.flush(5));
  CHECK_FALSE(journal.waits());
  const UniqueFd file(openat(dir.get(), "journal", O_RDONLY | O_CLOEXEC));
  char text[128] = "";
  REQUIRE(read(file.get(), text, sizeof text - 1) > 0);
  CHECK(std::string(text) == "{\"n\":1}\n{\"n\":2}\n{\"n\":3}\n{\"n\":4}\n{\"n\":5}\n");
  unlinkat(dir.get(), "journal", 0);
  rmdir(directory);
}

TEST_CASE("every call is found by its number, once") {
  for (const InterposedCall& call : interposed_calls()) CHECK(interposed_call(call.number) == &call);
  CHECK(interposed_call(10'000) == nullptr);
}
