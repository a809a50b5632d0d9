// What virt-init and its supervisors say to each other: frames over a unix stream socket. Both sides of the
// protocol and the launch plan are described here and nowhere else in C++; src/control/protocol.ts is its
// mirror.
//
// A frame is a FrameHeader and `size` bytes. A request carries a number that its reply repeats; an event has
// number 0. All integers are in the machine's own order: the socket never leaves the machine. init treats
// every byte from a supervisor, and a supervisor every byte from init, as hostile: limits first, then
// lengths, then use.
//
// No exceptions here: virt-init uses this too.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

namespace virt::protocol {

inline constexpr uint32_t kVersion = 1;
inline constexpr uint32_t kMostFrameBytes = 8 << 20;  // argv and environment may be large (ARG_MAX)

enum class Type : uint16_t {
  // requests
  kHello = 1,      // → Status
  kSignal = 2,     // u32 pid (0: first program), u32 whole group?, u32 signal
  kExec = 3,       // ExecPlan, up to 3 fds → u32 pid
  kSubscribe = 4,  // from now on events come on this connection
  kAttach = 5,     // u32 flags: become a viewer of the pod's terminal or streams
  kInput = 6,      // bytes for the terminal or standard input; empty: end of input
  kResize = 7,     // u16 rows, u16 columns
  kLock = 8,       // text: what for. EBUSY + text while another connection holds it
  kUnlock = 9,
  kOpen = 10,     // u32 flags, path → one fd, opened inside the pod
  kRelease = 11,  // kill everything in the pod and go; u32 1 if it was detached
  kSeed = 12,     // rebuild: u64 region, u64 size, u32 pid → u32 pid of the seed in the pod
  kCommit = 13,   // rebuild: u32 first pid; from now on the pod lives without us
  kCatchUp = 20,  // the journal holds all that was done so far when the answer comes
  // events
  kForked = 0xff,    // u32 pid of init as its parent sees it; before anything else
  kStarted = 0x100,  // u32 pid of the first program
  kExited = 0x101,   // u32 pid, i32 wait status, u32 first program?
  kOutput = 0x102,   // u32 stream (1, 2), bytes
  kGone = 0x103,     // the pod has ended; the connection closes
  kFailed = 0x104,   // i32 errno, text of the step that failed: the pod could not be made
  kStopped = 0x105,  // u32 pid, u32 signal
};

inline constexpr uint16_t kReply =
    0x8000;  // or'ed into the request's type; payload begins with an i32 -errno

struct FrameHeader {
  uint32_t size = 0;
  uint16_t type = 0;
  uint16_t reserved = 0;
  uint32_t number = 0;
};
static_assert(sizeof(FrameHeader) == 12);

// How the first program's standard streams are made.
enum class Stdio : uint32_t {
  kInherit = 0,   // descriptors 0, 1, 2 that virt-init was started with
  kStreams = 1,   // pipes that init keeps: log, viewers
  kTerminal = 2,  // a pty whose master init keeps
};

inline constexpr uint32_t kPlanUserNamespace = 1;  // map our uid and gid into a new user namespace
inline constexpr uint32_t kPlanRebuild = 2;        // wait for an engine instead of starting a program
inline constexpr uint32_t kPlanKeepInput = 4;      // standard input stays open though no viewer is there (-i)
inline constexpr uint32_t kPlanViewed = 8;         // the first supervisor views the console from the start
inline constexpr uint32_t kPlanPatient = 16;       // … and its output is never dropped

// A bind mount: what is at `from` on the host appears at `to` in the pod.
struct Remap {
  std::string from, to;
};

// Files that only this pod sees (init/overlay.h).
enum class LayerKind : uint32_t {
  kOverlay =
      0,  // `upper` in `source` lies over the directory `at` and takes what is written there; `work` is overlayfs's
  kAssembled = 1,  // the same where `at` has mounts below it or is the root: what is in it is mounted back
  kFile = 2,       // the file `source` stands at `at`, which is one
};
struct Layer {
  LayerKind kind = LayerKind::kOverlay;
  std::string at, source;
};

// Everything virt-init does before it becomes a keeper. Written once to its plan fd by the supervisor.
struct LaunchPlan {
  uint32_t flags = 0;
  Stdio stdio = Stdio::kInherit;
  uint32_t uid = 0, gid = 0;
  uint16_t rows = 24, columns = 80;
  uint64_t open_files = 0;  // soft limit of open files for the first program; 0: as we have it
  int64_t monotonic_offset_ns = 0, boottime_offset_ns = 0;  // rebuild: time namespace
  uint32_t pts_index = 0;                                   // rebuild: the terminal's number
  uint32_t recording = 0;                                   // interpose/policy.h
  std::string state_dir;                                    // where log and exit status go
  std::string socket_path;                                  // removed when the pod ends
  std::string hostname;                                     // empty: the host's
  std::string cwd;
  std::vector<Remap> remaps;
  std::vector<Layer> layers;  // parents before what lies in them
  std::vector<std::string> argv, env;
};

struct ExecPlan {
  Stdio stdio = Stdio::kInherit;
  uint16_t rows = 24, columns = 80;
  std::string cwd;
  std::vector<std::string> argv, env;
};

// Appends fields in order.
class Writer {
 public:
  template <typename T>
  void number(T n) {
    static_assert(std::is_integral_v<T> || std::is_enum_v<T>);
    bytes_.append(reinterpret_cast<const char*>(&n), sizeof n);
  }
  void text(std::string_view s) {
    number(static_cast<uint32_t>(s.size()));
    bytes_.append(s);
  }
  void texts(const std::vector<std::string>& list) {
    number(static_cast<uint32_t>(list.size()));
    for (const auto& s : list) text(s);
  }
  void raw(std::string_view s) { bytes_.append(s); }
  [[nodiscard]] const std::string& bytes() const { return bytes_; }

 private:
  std::string bytes_;
};

// A payload that is nothing but these numbers.
template <typename... T>
std::string pack(T... numbers) {
  Writer w;
  (w.number(numbers), ...);
  return w.bytes();
}

// Reads fields in order; after the first thing that does not fit everything reads as zero and ok() says
// false.
class Reader {
 public:
  explicit Reader(std::string_view bytes) : rest_(bytes) {}
  template <typename T>
  T number() {
    static_assert(std::is_integral_v<T> || std::is_enum_v<T>);
    T n{};
    if (rest_.size() < sizeof n) {
      fail();
      return T{};
    }
    std::memcpy(&n, rest_.data(), sizeof n);
    rest_.remove_prefix(sizeof n);
    return n;
  }
  std::string text() {
    const auto size = number<uint32_t>();
    if (size > rest_.size()) {
      fail();
      return {};
    }
    std::string s(rest_.substr(0, size));
    rest_.remove_prefix(size);
    return s;
  }
  std::vector<std::string> texts() {
    std::vector<std::string> list;
    const auto count = number<uint32_t>();
    if (count > rest_.size() / 4) fail();  // each takes at least its length
    for (uint32_t i = 0; i < count && ok_; ++i) list.push_back(text());
    return list;
  }
  [[nodiscard]] std::string_view rest() const { return rest_; }
  [[nodiscard]] bool ok() const { return ok_; }
  [[nodiscard]] bool done() const { return ok_ && rest_.empty(); }

 private:
  void fail() {
    ok_ = false;
    rest_ = {};
  }
  std::string_view rest_;
  bool ok_ = true;
};

// init's answer to kHello.
struct Status {
  uint32_t version = kVersion;
  uint32_t first_pid = 0;  // the first program, as the pod sees it; 0 before it started
  uint32_t exited = 0;     // the first program has ended, with…
  int32_t wait_status = 0;
  Stdio stdio = Stdio::kInherit;
  uint32_t viewers = 0;
  int32_t terminal_fd = -1;     // the master, in init's own fd table
  uint32_t terminal_index = 0;  // /dev/pts/N in the pod
  uint32_t rebuilding = 0;
  // What the launcher gave as standard input, output and error: device and inode, 0 if it was nothing
  // special.
  struct Stream {
    uint64_t device = 0, inode = 0;
  };
  std::vector<Stream> streams;  // in threes: the first program's, then each exec'd one's
};

std::string encode(const LaunchPlan& plan);
bool decode(std::string_view bytes, LaunchPlan* plan);
std::string encode(const ExecPlan& plan);
bool decode(std::string_view bytes, ExecPlan* plan);
std::string encode(const Status& status);
bool decode(std::string_view bytes, Status* status);

}  // namespace virt::protocol
