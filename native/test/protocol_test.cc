// init/protocol: what is said arrives, and nothing that is cut off or too long is taken.
#include "init/protocol.h"

#include <doctest/doctest.h>

#include <tuple>

using namespace virt::protocol;

namespace {

LaunchPlan some_plan() {
  LaunchPlan p;
  p.flags = kPlanUserNamespace | kPlanKeepInput;
  p.stdio = Stdio::kTerminal;
  p.uid = 1001;
  p.gid = 0xfffffffe;
  p.rows = 50;
  p.columns = 65535;
  p.open_files = ~uint64_t{0};
  p.monotonic_offset_ns = -5;
  p.boottime_offset_ns = int64_t{1} << 62;
  p.pts_index = 3;
  p.state_dir = "/state";
  p.socket_path = std::string("/run/\0x", 7);
  p.hostname = "";
  p.cwd = "/wörk";
  p.remaps = {{"/a", "/b"}, {"", "/c"}};
  p.mounts = {{MountOperation::kHide, "/a", ""}, {MountOperation::kFile, "/b", "/state/b"}};
  p.layers = {{LayerKind::kAssembled, "/", "/store"}, {LayerKind::kFile, "/a", "/b"}};
  p.argv = {"sh", "", "-c"};
  p.env = {"A=1"};
  return p;
}

bool same(const LaunchPlan& a, const LaunchPlan& b) {
  const auto remaps = [](const LaunchPlan& p) {
    std::vector<std::pair<std::string, std::string>> out;
    for (const Remap& r : p.remaps) out.emplace_back(r.from, r.to);
    return out;
  };
  const auto mounts = [](const LaunchPlan& p) {
    std::vector<std::tuple<MountOperation, std::string, std::string>> out;
    for (const MountRule& m : p.mounts) out.emplace_back(m.operation, m.path, m.source);
    return out;
  };
  const auto layers = [](const LaunchPlan& p) {
    std::vector<std::tuple<LayerKind, std::string, std::string>> out;
    for (const Layer& l : p.layers) out.emplace_back(l.kind, l.at, l.source);
    return out;
  };
  return a.flags == b.flags && a.stdio == b.stdio && a.uid == b.uid && a.gid == b.gid && a.rows == b.rows &&
         a.columns == b.columns && a.open_files == b.open_files &&
         a.monotonic_offset_ns == b.monotonic_offset_ns && a.boottime_offset_ns == b.boottime_offset_ns &&
         a.pts_index == b.pts_index && a.state_dir == b.state_dir && a.socket_path == b.socket_path &&
         a.hostname == b.hostname && a.cwd == b.cwd && remaps(a) == remaps(b) && mounts(a) == mounts(b) &&
         layers(a) == layers(b) && a.argv == b.argv && a.env == b.env;
}

Status some_status() {
  Status s;
  s.first_pid = 2;
  s.exited = 1;
  s.wait_status = -1;
  s.stdio = Stdio::kStreams;
  s.viewers = 3;
  s.terminal_fd = 9;
  s.terminal_index = 4;
  s.rebuilding = 1;
  s.streams = {{1, 2}, {3, ~uint64_t{0}}, {5, 6}};
  return s;
}

// Every beginning of a message that is not the whole of it, and the whole with something behind it.
template <typename T>
void check_only_whole(const std::string& bytes) {
  for (size_t size = 0; size < bytes.size(); ++size) {
    T out;
    CAPTURE(size);
    CHECK(!decode(std::string_view(bytes).substr(0, size), &out));
  }
  T out;
  CHECK(decode(bytes, &out));
  T longer;
  CHECK(!decode(bytes + '\0', &longer));
}

}  // namespace

TEST_CASE("a launch plan arrives as it was sent, whole or not at all") {
  const std::string bytes = encode(some_plan());
  LaunchPlan out;
  REQUIRE(decode(bytes, &out));
  CHECK(same(out, some_plan()));
  check_only_whole<LaunchPlan>(bytes);
  LaunchPlan empty;
  REQUIRE(decode(encode(LaunchPlan{}), &empty));
  CHECK(same(empty, LaunchPlan{}));
}

TEST_CASE("a plan of another version is refused") {
  std::string bytes = encode(some_plan());
  bytes[0] = static_cast<char>(kVersion + 1);
  LaunchPlan out;
  CHECK(!decode(bytes, &out));
}

TEST_CASE("an exec plan arrives as it was sent, whole or not at all") {
  ExecPlan p;
  p.stdio = Stdio::kTerminal;
  p.rows = 1;
  p.columns = 2;
  p.cwd = "/x";
  p.argv = {"true"};
  p.env = {"B=2", "C="};
  ExecPlan out;
  REQUIRE(decode(encode(p), &out));
  CHECK(out.stdio == p.stdio);
  CHECK(out.rows == 1);
  CHECK(out.columns == 2);
  CHECK(out.cwd == p.cwd);
  CHECK(out.argv == p.argv);
  CHECK(out.env == p.env);
  check_only_whole<ExecPlan>(encode(p));
}

TEST_CASE("a plan of far sockets and the states of relays arrive as they were sent, whole or not at all") {
  FarPlan plan;
  plan.through = 1;
  plan.key = std::string(kKeyBytes, 'k');
  plan.has_state = 1;
  plan.sockets.push_back({7, 2, 1, 0, "local", "peer", 6});
  plan.listeners = {{3, "name", "at"}, {4, "", ""}};
  const std::string bytes = encode(plan);
  FarPlan got;
  REQUIRE(decode(bytes, &got));
  CHECK(encode(got) == bytes);
  const std::vector<FarState> states = {
      {"key", "holder", 1000, {{7, 99}}, {{1u << 31, 100, "local", "peer"}}, {{3, "name", ""}}}};
  const std::string text = encode(states);
  std::vector<FarState> others;
  REQUIRE(decode(text, &others));
  CHECK(encode(others) == text);
  check_only_whole<FarPlan>(bytes);
  check_only_whole<std::vector<FarState>>(text);
  plan.listeners.resize(kMostFarListeners + 1);
  CHECK_FALSE(decode(encode(plan), &got));
}

TEST_CASE("a status arrives as it was sent, whole or not at all") {
  const Status s = some_status();
  Status out;
  REQUIRE(decode(encode(s), &out));
  CHECK(out.version == s.version);
  CHECK(out.first_pid == s.first_pid);
  CHECK(out.exited == s.exited);
  CHECK(out.wait_status == s.wait_status);
  CHECK(out.stdio == s.stdio);
  CHECK(out.viewers == s.viewers);
  CHECK(out.terminal_fd == s.terminal_fd);
  CHECK(out.terminal_index == s.terminal_index);
  CHECK(out.rebuilding == s.rebuilding);
  REQUIRE(out.streams.size() == 3);
  CHECK(out.streams[1].device == 3);
  CHECK(out.streams[1].inode == ~uint64_t{0});
  check_only_whole<Status>(encode(s));
}

TEST_CASE("counts and lengths that promise more than there is are refused before anything is allocated") {
  for (const uint32_t count : {0xffffffffU, 0x80000000U, 0x10000000U}) {
    Writer w;
    w.number(count);
    CHECK(Reader(w.bytes()).texts().empty());
    Reader texts(w.bytes());
    (void)texts.texts();
    CHECK(!texts.ok());
    Reader text(w.bytes());
    CHECK(text.text().empty());
    CHECK(!text.ok());
  }
  std::string bytes = encode(some_status());
  const uint32_t many = 0xfffffff0;
  bytes.replace(36, 4, reinterpret_cast<const char*>(&many), 4);
  Status out;
  CHECK(!decode(bytes, &out));
  CHECK(out.streams.empty());
}

TEST_CASE("after the first thing that does not fit everything reads as nothing") {
  Writer w;
  w.number(uint16_t{7});
  w.number(uint8_t{1});
  Reader r(w.bytes());
  CHECK(r.number<uint16_t>() == 7);
  CHECK(r.ok());
  CHECK(r.number<uint32_t>() == 0);
  CHECK(!r.ok());
  CHECK_MESSAGE(r.number<uint8_t>() == 0, "although one byte would have been there");
  CHECK(r.text().empty());
  CHECK(r.texts().empty());
  CHECK(!r.done());
}
