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
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "sys/wire.h"

namespace virt::protocol {

inline constexpr uint32_t kVersion = 3;
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
  kRules = 14,    // other rules (interpose/rules.h); EOPNOTSUPP: not covered by the pod's filter
  kHook = 15,     // u32 1: hooks are asked on this connection from now on; 0: no more
  kAnswer = 16,   // what a hook says (interpose/asks.h), up to 1 fd; no reply
  kSocket = 17,   // u32 family, u32 type, u32 protocol → one fd, a socket of the pod's network namespace
  kMount = 18,    // from, to: what is at `from` appears at `to` as well, in the pod
  kHold =
      19,  // text name, text key, text address (sockaddr) where other hosts reach it or empty, u32 ms that the way to them may be cut or 0, u32 count, then of each u32 id, u32 HeldSort, its descriptor riding: kept after kRelease.
           // The first with none: it makes room, and is answered with the port that the kernel gave (u32)
  kRelay =
      23,  // rebuild: FarPlan, a memfd riding if the relay goes on from a former one's state → u32 count, descriptors
  // riding: sockets that lead through a holder on another host
  kFar =
      24,  // u32 freeze? → u32 count, of each FarState, its state in a memfd riding if frozen: until the connection goes
  kCatchUp = 20,  // the journal holds all that was done so far when the answer comes
  // requests to a holder (init/holder.h), which answers kHello (text key, or nothing) with a HoldStatus
  kTake = 21,  // text key, u32 from → u32 how many there are, u32 count, u32 ids, their descriptors riding
  kDrop = 22,  // text key, or empty: what is held is let go of, and the holder ends
  // events
  kForked = 0xff,    // u32 pid of init as its parent sees it; before anything else
  kStarted = 0x100,  // u32 pid of the first program
  kExited = 0x101,   // u32 pid, i32 wait status, u32 first program?, u32 pid as the host has it (0: unknown)
  kOutput = 0x102,   // u32 stream (1, 2), bytes
  kGone = 0x103,     // the pod has ended; the connection closes
  kFailed = 0x104,   // i32 errno, text of the step that failed: the pod could not be made
  kStopped = 0x105,  // u32 pid, u32 signal
  kAsk = 0x106,      // a call that waits for a hook's word (interpose/asks.h)
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

inline constexpr size_t kKeyBytes = 32;
inline constexpr size_t kMostHeldInFrame = 128;
// kInside: between two processes of the pod, through a listener that is held.
enum class HeldSort : uint32_t { kConnection = 0, kListener = 1, kDatagram = 2, kInside = 3 };

// A socket whose other end is kept on another host. Addresses as the kernel has them (sockaddr); empty: none.
struct FarSocket {
  uint32_t id = 0, family = 0, type = 0, v6_only = 0;
  std::string local, peer;
  // How much the program's socket has in its queue, of one that was far before: the next bytes of the file that rides along, for
  // a frame is too small for a full queue.
  uint32_t unread_bytes = 0;
};
struct FarPlan {
  uint32_t through = 0;  // which relay: the first, or one more
  std::string key;
  std::string holder;         // sockaddr of where the holder is found
  uint32_t cut_limit_ms = 0;  // how long the way there may be cut; 0: relay::Options knows
  uint32_t has_state =
      0;  // the first file that rides along is the relay's state, the other has what is unread
  std::vector<FarSocket> sockets;
};

// A relay of a pod: where its holder is found, and the inodes of the programs' sockets by channel.
struct FarState {
  std::string key, holder;
  uint32_t cut_limit_ms = 0;
  std::vector<std::pair<uint32_t, uint64_t>> sockets;
};

// A holder's answer to kHello.
struct HoldStatus {
  uint32_t version = kVersion;
  uint32_t connections = 0, listeners = 0, datagrams = 0;
  uint64_t held_ms = 0;
  uint32_t gone_on = 0;    // the pod is on another host: what is here is passed on to it
  uint32_t connected = 0;  // … which it is now
};

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
inline constexpr uint32_t kPlanAllIds = 32;        // with a user namespace: map all ids we have (we are root)
inline constexpr uint32_t kPlanIsolated =
    64;  // mounts are private, programs have fewer rights (init/rights.h)
inline constexpr uint32_t kPlanNoNetwork = 128;  // an empty network namespace
inline constexpr uint32_t kPlanNoDevices = 256;  // device nodes open nowhere but in /dev
inline constexpr uint32_t kPlanHooked = 512;     // the first supervisor answers hooks from the start
inline constexpr uint32_t kPlanFar = 1024;       // rebuild: kRelay will come

// A bind mount: what is at `from` on the host appears at `to` in the pod.
struct Remap {
  std::string from, to;
};

// What is done to a path of the pod, in this order, after the remaps. Paths have no symbolic link in them.
enum class MountOperation : uint32_t {
  kReadOnly = 0,  // it and all that is mounted below cannot be written
  kWritable = 1,  // it is as it was before the operations above it
  kHide = 2,      // something empty is there instead
  kOwn = 3,       // the pod's own directory `source` is there, writable
  kPin = 4,       // a mount point of its own, so that nobody can rename or remove it
  kDevices = 5,   // a /dev with the harmless devices alone
  kFile = 6,      // the pod's own file `source` is there, read only
};
struct MountRule {
  MountOperation operation = MountOperation::kReadOnly;
  std::string path, source;
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
  uint32_t covered = 0;     // kinds of calls for rules to come, interpose/calls.h
  std::string rules;        // interpose/rules.h
  std::string state_dir;    // where log and exit status go
  std::string socket_path;  // removed when the pod ends
  std::string hostname;     // empty: the host's
  std::string cwd;
  std::vector<Remap> remaps;
  std::vector<MountRule> mounts;
  std::vector<Layer> layers;  // parents before what lies in them
  std::vector<std::string> argv, env;
};

struct ExecPlan {
  Stdio stdio = Stdio::kInherit;
  uint16_t rows = 24, columns = 80;
  std::string cwd;
  std::vector<std::string> argv, env;
};

using wire::pack;
using wire::Reader;
using wire::Writer;

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
std::string encode(const HoldStatus& status);
std::string encode(const FarPlan& plan);
bool decode(std::string_view bytes, FarPlan* plan);
std::string encode(const std::vector<FarState>& states);
bool decode(std::string_view bytes, std::vector<FarState>* states);
bool decode(std::string_view bytes, Status* status);

}  // namespace virt::protocol
