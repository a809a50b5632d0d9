// move/wire: what is sent arrives in order and whole, in files or as messages; what makes no sense is refused before anything
// is made of it.
#include "move/wire.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstring>
#include <thread>

#include "base/error.h"
#include "memory/page_hash.h"
#include "memory/page_store.h"
#include "move/wire_sink.h"
#include "sys/clocks.h"
#include "sys/file.h"
#include "test/support.h"

using namespace virt;
using virt::test::Random;
using virt::test::TemporaryDirectory;

namespace {

struct Pair {
  UniqueFd near, far;
  Pair() {
    int fds[2];
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
    near.reset(fds[0]);
    far.reset(fds[1]);
  }
};

UniqueFd dup_of(const UniqueFd& fd) { return UniqueFd(fcntl(fd.get(), F_DUPFD_CLOEXEC, 0)); }

Wire wire_of(const UniqueFd& fd) { return {dup_of(fd), dup_of(fd)}; }

std::string page_of(Random& random) {
  std::string page(kPageBytes, '\0');
  for (size_t i = 0; i < page.size(); i += 8) {
    const uint64_t n = random.next();
    std::memcpy(page.data() + i, &n, 8);
  }
  return page;
}

std::string code_of(const std::function<void()>& f) {
  try {
    f();
  } catch (const OsError& e) {
    return e.code();
  }
  return "";
}

struct Raw {
  uint32_t type, size;
  uint64_t number;
};

// The code with which a receiver refuses these bytes.
std::string refusal(const std::string& bytes, bool with_directory = true) {
  Pair pair;
  TemporaryDirectory dir;
  Wire wire = wire_of(pair.far);
  if (with_directory) wire.receive_into(dir.fd());
  std::thread sender([&] {
    (void)!write(pair.near.get(), bytes.data(), bytes.size());
    shutdown(pair.near.get(), SHUT_WR);
  });
  const std::string code = code_of([&] {
    while (wire.next()) continue;
  });
  sender.join();
  return code;
}

std::string frame(uint32_t type, uint64_t number, const std::string& payload, int64_t size = -1) {
  const Raw raw{type, size < 0 ? static_cast<uint32_t>(payload.size()) : static_cast<uint32_t>(size), number};
  return std::string(reinterpret_cast<const char*>(&raw), sizeof raw) + payload;
}

std::string pages_frame(uint64_t first, size_t count) {
  Random random(1);
  std::string pages, hashes;
  for (size_t i = 0; i < count; ++i) {
    const std::string page = page_of(random);
    const uint64_t hash = digest_page(page.data()).hash;
    hashes.append(reinterpret_cast<const char*>(&hash), sizeof hash);
    pages += page;
  }
  return frame(2, first, hashes + pages);
}

}  // namespace

TEST_CASE("messages, pages and files arrive in the order in which they were sent") {
  Pair pair;
  TemporaryDirectory from, to;
  (void)from.write("log", std::string(700'000, 'l'));
  auto near = std::make_shared<Wire>(dup_of(pair.near), dup_of(pair.near));
  Wire far = wire_of(pair.far);
  far.receive_into(to.fd());
  Random random(7);
  std::vector<std::string> pages;
  for (int i = 0; i < 20'000; ++i)
    pages.push_back(i % 5 == 4 ? pages[static_cast<size_t>(i) / 2] : page_of(random));
  std::vector<PageRun> runs;
  std::vector<uint64_t> parts;
  std::thread sender([&] {
    near->send_control("first");
    PageStore store(std::make_unique<WireSink>(near, 0x1234567));
    PageStore::Lane lane;
    for (size_t i = 0; i < pages.size(); i += 100) {
      std::string bytes;
      for (size_t k = i; k < i + 100; ++k) bytes += pages[k];
      store.add(lane, i * kPageBytes, bytes.data(), 100, false, &runs);
    }
    parts = store.finish(from.fd());
    near->send_file(from.fd(), "pages.sum");
    near->send_file(from.fd(), "log");
    near->send_control("last");
  });
  CHECK(far.next() == "first");
  CHECK(far.next() == "last");
  sender.join();
  CHECK(near->sent_bytes() == far.received_bytes());
  CHECK_MESSAGE(far.received_bytes() < 17'000 * kPageBytes, "what was sent is not sent again");
  const PageFile file(to.fd(), parts);
  for (const PageRun& r : runs) {
    std::string bytes(r.count * kPageBytes, '\0');
    file.read(r.index, r.count, bytes.data());
    for (uint64_t i = 0; i < r.count; ++i)
      REQUIRE(bytes.compare(i * kPageBytes, kPageBytes, pages[r.start / kPageBytes + i]) == 0);
  }
  CHECK(read_file(to.path() + "/log") == std::string(700'000, 'l'));
}

TEST_CASE("nonsense is refused") {
  CHECK(refusal(frame(9, 0, "")) == "ERR_MOVE_PROTOCOL");
  CHECK(refusal(frame(1, 0, "", (1 << 20) + 1)) == "ERR_MOVE_PROTOCOL");
  CHECK(refusal(pages_frame(0, 2), false) == "ERR_MOVE_PROTOCOL");
  CHECK(refusal(frame(2, 0, std::string(100, 'x'))) == "ERR_MOVE_PROTOCOL");
  CHECK(refusal(frame(2, 0, "")) == "ERR_MOVE_PROTOCOL");
  CHECK(refusal(frame(2, 0, "", 257 * (4096 + 8))) == "ERR_MOVE_PROTOCOL");
  CHECK(refusal(pages_frame(kPartPages - 1, 2)) == "ERR_MOVE_PROTOCOL");
  CHECK(refusal(pages_frame(uint64_t{1} << 60, 1)) == "ERR_MOVE_PROTOCOL");
  for (const std::string name :
       {"../x", "files/../../x", "/etc/x", "pages-1.bin", "manifest.json/", "", "files/abc", "relay-"})
    CHECK_MESSAGE(refusal(frame(3, 0, name)) == "ERR_MOVE_PROTOCOL", name);
  CHECK(refusal(frame(3, 0, "log") + frame(3, 0, "pages.sum")) == "ERR_MOVE_PROTOCOL");
  CHECK(refusal(frame(3, 0, "log") + frame(5, 0, "") + frame(3, 0, "log")) == "ERR_MOVE_PROTOCOL");
  CHECK(refusal(frame(4, 0, "data")) == "ERR_MOVE_PROTOCOL");
  CHECK(refusal(frame(3, 0, "log") + frame(4, 0, "data") + frame(5, 3, "")) == "ERR_MOVE_PROTOCOL");
  CHECK(refusal(frame(3, 0, "log") + frame(4, 0, "", (256 << 10) + 1)) == "ERR_MOVE_PROTOCOL");
}

TEST_CASE("a page that changed on its way is noticed, and a stream that ends in the middle") {
  std::string bytes = pages_frame(5, 3);
  CHECK(refusal(bytes) == "");
  bytes[3000] ^= 1;
  CHECK(refusal(bytes) == "ERR_IMAGE_DAMAGED");
  CHECK(refusal(pages_frame(5, 3).substr(0, 5000)) == "ERR_MOVE_LOST");
  CHECK(refusal(std::string(3, 'x')) == "ERR_MOVE_LOST");
}

TEST_CASE("random damage is never more than an error") {
  Random random(11);
  for (int i = 0; i < 300; ++i) {
    std::string bytes =
        frame(1, 0, "hello") + pages_frame(0, 1) + frame(3, 0, "log") + frame(4, 0, "data") + frame(5, 4, "");
    const std::string code = refusal(virt::test::damaged(bytes, random));
    CHECK_MESSAGE((code.empty() || code == "ERR_MOVE_PROTOCOL" || code == "ERR_MOVE_LOST" ||
                   code == "ERR_IMAGE_DAMAGED"),
                  code);
  }
}

TEST_CASE("whoever waits is stopped") {
  Pair pair;
  Wire wire = wire_of(pair.near);
  std::string reading, writing;
  std::thread reader([&] { reading = code_of([&] { (void)wire.next(); }); });
  std::thread writer([&] {
    writing = code_of([&] {
      const std::string much(1 << 20, 'x');
      for (;;) wire.send_control(much);
    });
  });
  wire.stop();
  reader.join();
  writer.join();
  CHECK(reading == "ERR_ABORTED");
  CHECK(writing == "ERR_ABORTED");
}

TEST_CASE("a limit holds") {
  Pair pair;
  Wire near = wire_of(pair.near), far = wire_of(pair.far);
  near.limit(4 << 20);
  const int64_t start = monotonic_ns();
  std::thread reader([&] {
    for (int i = 0; i < 4; ++i) (void)far.next();
  });
  for (int i = 0; i < 4; ++i) near.send_control(std::string(1 << 20, 'x'));
  reader.join();
  // A second's worth, of which a tenth may go at once; nothing is said of how much slower a busy machine is.
  CHECK(monotonic_ns() - start > 800'000'000);
}
