// sys/message: bytes and descriptors over a socket.
#include "sys/message.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <cerrno>
#include <string>
#include <vector>

#include "sys/file.h"
#include "test/support.h"

using namespace virt;
using virt::test::Child;

namespace {

struct Pair {
  UniqueFd a, b;
  Pair() {
    int ends[2];
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
    a.reset(ends[0]);
    b.reset(ends[1]);
  }
};

size_t open_descriptors() { return try_list_numbers("/proc/self/fd")->size(); }

bool same_file(int a, int b) {
  struct stat sa {
  }, sb{};
  return fstat(a, &sa) == 0 && fstat(b, &sb) == 0 && sa.st_ino == sb.st_ino && sa.st_dev == sb.st_dev;
}

}  // namespace

TEST_CASE("bytes arrive whole and in order, however small the socket's buffer") {
  const Pair p;
  const std::string sent = [] {
    std::string s(3'000'000, '\0');
    test::Random random(1);
    for (char& c : s) c = static_cast<char>(random.next());
    return s;
  }();
  Child sender([&] { return send_with_fds(p.a.get(), sent.data(), sent.size(), nullptr, 0) == 0 ? 0 : 1; });
  std::string got(sent.size(), '\0');
  UniqueFd fds[kMaxPassedFds];
  size_t count = 0;
  CHECK(receive_all(p.b.get(), got.data(), got.size(), fds, &count) == 0);
  CHECK(got == sent);
  CHECK(count == 0);
  CHECK(sender.wait() == 0);
}

TEST_CASE("descriptors ride on the first byte, are close-on-exec, and none is lost or left open") {
  const test::TemporaryDirectory dir;
  const size_t before = open_descriptors();
  for (const size_t number : {size_t{1}, size_t{3}, kMaxPassedFds}) {
    CAPTURE(number);
    const Pair p;
    std::vector<UniqueFd> files;
    std::vector<int> raw;
    for (size_t i = 0; i < number; ++i) {
      files.emplace_back(open((dir.path() + "/" + std::to_string(i)).c_str(), O_RDWR | O_CREAT, 0600));
      raw.push_back(files.back().get());
    }
    REQUIRE(send_with_fds(p.a.get(), "0123456789", 10, raw.data(), number) == 0);
    REQUIRE(send_with_fds(p.a.get(), "abc", 3, nullptr, 0) == 0);
    UniqueFd fds[kMaxPassedFds];
    size_t count = 0;
    char first[4];
    REQUIRE(receive_with_fds(p.b.get(), first, sizeof first, fds, &count) == 4);
    CHECK(count == number);
    for (size_t i = 0; i < number; ++i) {
      CHECK(same_file(fds[i].get(), raw[i]));
      CHECK((fcntl(fds[i].get(), F_GETFD) & FD_CLOEXEC) != 0);
    }
    char rest[9];
    REQUIRE(receive_all(p.b.get(), rest, sizeof rest, fds, &count) == 0);
    CHECK(std::string_view(rest, 9) == "456789abc");
    CHECK(count == number);
  }
  CHECK(open_descriptors() == before);
}

TEST_CASE("more descriptors than there is room for are closed, not leaked") {
  const size_t before = open_descriptors();
  {
    const Pair p;
    std::vector<int> raw(kMaxPassedFds, p.a.get());
    REQUIRE(send_with_fds(p.a.get(), "x", 1, raw.data(), raw.size()) == 0);
    UniqueFd fds[kMaxPassedFds];
    size_t count = kMaxPassedFds - 2;
    char byte;
    REQUIRE(receive_with_fds(p.b.get(), &byte, 1, fds, &count) == 1);
    CHECK(count == kMaxPassedFds);
    CHECK(!fds[0]);
    CHECK(fds[kMaxPassedFds - 1]);
    CHECK(send_with_fds(p.a.get(), "x", 1, raw.data(), kMaxPassedFds + 1) == -EINVAL);
  }
  CHECK(open_descriptors() == before);
}

TEST_CASE("the end of the stream is told, and no signal comes of it") {
  Pair p;
  REQUIRE(send_with_fds(p.a.get(), "abc", 3, nullptr, 0) == 0);
  p.a.reset();
  char four[4];
  UniqueFd fds[kMaxPassedFds];
  size_t count = 0;
  CHECK(receive_all(p.b.get(), four, 4, fds, &count) == -EPIPE);
  CHECK(receive_with_fds(p.b.get(), four, 4, fds, &count) == 0);
  signal(SIGPIPE, SIG_DFL);
  CHECK(send_with_fds(p.b.get(), "x", 1, nullptr, 0) == -EPIPE);
  CHECK(send_with_fds(-1, "x", 1, nullptr, 0) == -EBADF);
  CHECK(receive_all(-1, four, 4, fds, &count) == -EBADF);
  CHECK(receive_all(p.b.get(), four, 0, fds, &count) == 0);
}

TEST_CASE("a descriptor that is no descriptor fails the message") {
  const Pair p;
  const int bad = 9999;
  CHECK(send_with_fds(p.a.get(), "x", 1, &bad, 1) == -EBADF);
}
