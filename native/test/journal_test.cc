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

// A pod's state directory, while the test lasts.
class StateDirectory {
 public:
  StateDirectory() {
    REQUIRE(mkdtemp(path_) != nullptr);
    fd_.reset(open(path_, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  }
  ~StateDirectory() {
    for (const char* name : {"journal", "journal.1"}) unlinkat(get(), name, 0);
    rmdir(path_);
  }
  StateDirectory(const StateDirectory&) = delete;
  StateDirectory& operator=(const StateDirectory&) = delete;
  [[nodiscard]] int get() const { return fd_.get(); }
  // Of the journal, its beginning.
  [[nodiscard]] std::string text() const {
    const UniqueFd file(openat(get(), "journal", O_RDONLY | O_CLOEXEC));
    char text[512] = "";
    const ssize_t n = read(file.get(), text, sizeof text);
    REQUIRE(n > 0);
    return {text, static_cast<size_t>(n)};
  }

 private:
  char path_[32] = "/tmp/virt-run-journal-XXXXXX";
  UniqueFd fd_;
};

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
  const StateDirectory dir;
  for (int i = 0; i < 2; ++i) {
    Journal journal(dir.get());
    journal.append(1, JournalLine().number("n", i));
    CHECK(journal.flush(UINT64_MAX));
  }
  CHECK(dir.text() == "{\"n\":0}\n{\"n\":1}\n");
  struct stat st {};
  REQUIRE(fstatat(dir.get(), "journal", &st, 0) == 0);
  CHECK((st.st_mode & 07777) == 0600);
}

TEST_CASE("where there is no room for a whole line there is none of it") {
  const StateDirectory dir;
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
  const std::string found = dir.text();
  CHECK(found.starts_with("{\"path\":\"first\"}\n{\"time\":"));
  CHECK(found.ends_with(R"("kind":"lost","result":"ENOSPC","lines":1})"
                        "\n{\"path\":\"last\"}\n"));
}

TEST_CASE("a third file takes the first one's place, and says so") {
  const StateDirectory dir;
  const auto grow = [&dir] {  // beyond what one may hold; the next line goes to the next
    const UniqueFd file(openat(dir.get(), "journal", O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
    REQUIRE(ftruncate(file.get(), (64 << 20) + 1) == 0);
  };
  const auto add = [&dir](int n) {
    Journal journal(dir.get());
    journal.append(1, JournalLine().number("n", n));
    CHECK(journal.flush(1));
  };
  grow();
  add(1);
  CHECK(dir.text() == "{\"n\":1}\n");
  grow();
  add(2);
  CHECK(dir.text().find(R"("kind":"lost","result":"EFBIG"})"
                        "\n{\"n\":2}\n") != std::string::npos);
}

TEST_CASE("lines are in the order of their calls, however late they are known") {
  const StateDirectory dir;
  Journal journal(dir.get());
  for (const int order : {3, 1, 5, 2})
    journal.append(static_cast<uint64_t>(order), JournalLine().number("n", order));
  CHECK(journal.flush(3));
  CHECK(journal.waits());
  journal.append(4, JournalLine().number("n", 4));
  CHECK(journal.flush(5));
  CHECK_FALSE(journal.waits());
  CHECK(dir.text() == "{\"n\":1}\n{\"n\":2}\n{\"n\":3}\n{\"n\":4}\n{\"n\":5}\n");
}

TEST_CASE("every call is found by its number, once") {
  for (const InterposedCall& call : interposed_calls()) CHECK(interposed_call(call.number) == &call);
  CHECK(interposed_call(10'000) == nullptr);
}
