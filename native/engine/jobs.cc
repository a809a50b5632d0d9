#include "engine/jobs.h"

#include <fcntl.h>
#include <sys/syscall.h>

#include <cerrno>

#include "base/error.h"
#include "base/fault.h"
#include "sys/clocks.h"
#include "sys/file.h"
#include "sys/proc.h"

namespace virt {

using protocol::Type;
using protocol::Writer;

namespace {

UniqueFd take_from(pid_t host_pid, int fd) {
  UniqueFd pidfd(static_cast<int>(syscall(SYS_pidfd_open, host_pid, 0)));
  UniqueFd got(pidfd ? static_cast<int>(syscall(SYS_pidfd_getfd, pidfd.get(), fd, 0)) : -1);
  if (!got) throw OsError("pidfd_getfd", errno, "taking the pod's terminal from init");
  return got;
}

protocol::Status hello(ControlClient& control) {
  protocol::Status status;
  if (!decode(control.call(Type::kHello, {}, "asking the pod's init how it is").payload, &status) ||
      status.version != protocol::kVersion) {
    throw OsError("ERR_POD_VERSION", "hello", 0, "the pod's init speaks another version of the protocol");
  }
  return status;
}

int64_t number_in(const Value& text) {
  const auto n = parse_number(text.as_string());
  if (!n) throw BadValue("a clock that is no number");
  return static_cast<int64_t>(*n);
}

}  // namespace

CaptureJob::CaptureJob(const Value& options, Progress& progress)
    : control_(ControlClient::connect(options.at("socket").as_string())), progress_(progress) {
  CaptureOptions o;
  o.init_host_pid = control_.peer_pid();
  const protocol::Status status = hello(control_);
  for (const auto& s : status.streams) o.streams.emplace_back(s.device, s.inode);
  if (status.terminal_fd >= 0) {
    terminal_ = take_from(o.init_host_pid, status.terminal_fd);
    o.terminal_master = terminal_.get();
    o.terminal_index = status.terminal_index;
  }
  if (const Value* drop = options.find("drop")) {
    for (const Value& kind : drop->as_list()) o.drop.insert(kind.as_string());
  }
  if (const Value* remapped = options.find("remapped")) {
    for (const Value& path : remapped->as_list()) o.remapped.insert(path.as_string());
  }
  o.tcp = options.get_string("tcp", "hold");
  o.freeze_timeout_ms = static_cast<int>(options.get_int("freezeTimeoutMs", 5000));
  o.threads = static_cast<unsigned>(options.get_int("threads", 2));
  o.open_in_pod = [this](const std::string& path, int flags) {
    Writer w;
    w.number(static_cast<uint32_t>(flags));
    w.text(path);
    try {
      auto reply = control_.call(Type::kOpen, w.bytes(), "opening a file inside the pod");
      return reply.fds.empty() ? UniqueFd() : std::move(reply.fds[0]);
    } catch (const OsError& e) {
      if (e.code() == "ERR_POD_GONE") throw;
      return UniqueFd();
    }
  };
  o.socket_in_pod = [this](int family, int type, int protocol) {
    Writer w;
    for (const int n : {family, type, protocol}) w.number(static_cast<uint32_t>(n));
    auto reply = control_.call(Type::kSocket, w.bytes(), "making a socket inside the pod");
    return reply.fds.empty() ? UniqueFd() : std::move(reply.fds[0]);
  };
  Writer what;
  what.raw(options.get_string("lock", "capture"));
  try {
    control_.call(Type::kLock, what.bytes(), "locking the pod");
  } catch (const OsError& e) {
    if (e.error() != EBUSY) throw;
    throw OsError("ERR_POD_BUSY", "lock", 0, "another command is changing this pod");
  }
  options_ = std::move(o);
}

Value CaptureJob::survey() {
  // A process that is killed from outside between freeze and survey makes what was found so far worthless;
  // nothing was changed yet, so begin again.
  constexpr int kMostAttempts = 4;
  for (int attempt = 1;; ++attempt) {
    capture_ = std::make_unique<Capture>(options_);
    progress_.phase = "freeze";
    try {
      capture_->freeze();
      progress_.phase = "survey";
      record_ = capture_->survey();
      break;
    } catch (OsError& e) {
      capture_.reset();
      const bool gone = e.code() == "ERR_PROCESS_GONE" || e.error() == ESRCH;
      if (gone && attempt < kMostAttempts && !progress_.stop.load()) continue;
      e.during(progress_.phase.load());
      throw;
    }
  }
  progress_.total_bytes = capture_->resident_bytes();
  return record_;
}

Value CaptureJob::read(int directory) {
  progress_.phase = "read";
  try {
    capture_->read(directory, record_, progress_.stop, progress_.done_bytes);
  } catch (OsError& e) {
    e.during("read");
    throw;
  }
  progress_.phase = "verify";
  return record_;
}

void CaptureJob::remap(const Value& changes) {
  progress_.phase = "remap";
  capture_->remap_descriptors(changes);
}

void CaptureJob::thaw() {
  progress_.phase = "thaw";
  capture_->thaw();
}

void CaptureJob::release() {
  progress_.phase = "release";
  fault_point("release");
  Writer w;
  w.number(uint32_t{1});
  control_.call(Type::kRelease, w.bytes(), "letting go of the pod");
  capture_->reap();
}

RebuildJob::RebuildJob(Value plan, protocol::LaunchPlan launch, LaunchFiles files, Progress& progress)
    : plan_(std::move(plan)), launch_(std::move(launch)), files_(std::move(files)), progress_(progress) {}

Value RebuildJob::build() {
  progress_.phase = "launch";
  try {
    directory_ = open_file(plan_.at("directory").as_string(), O_PATH | O_DIRECTORY);
    fault_point("rebuild-launch");
    // The pod's clocks go on from where they were.
    const Value& clocks = plan_.at("clocks");
    launch_.monotonic_offset_ns = number_in(clocks.at("monotonicNs")) - host_clock_ns(Clock::monotonic);
    launch_.boottime_offset_ns = number_in(clocks.at("boottimeNs")) - host_clock_ns(Clock::boottime);
    UniqueFd control = virt::launch(launch_, files_);
    control_dup_.reset(fcntl(control.get(), F_DUPFD_CLOEXEC, 0));
    control_ = std::make_unique<ControlClient>(std::move(control));
    RebuildOptions o;
    o.init_host_pid = control_->await_fork();
    const protocol::Status status = hello(*control_);
    if (status.terminal_fd >= 0) o.terminal_master = take_from(o.init_host_pid, status.terminal_fd);
    o.image_directory = directory_.get();
    o.threads = static_cast<unsigned>(plan_.get_int("threads", 2));
    o.grow_seed = [this](uint64_t region, uint64_t size, pid_t pid) {
      Writer w;
      w.number(region);
      w.number(size);
      w.number(static_cast<uint32_t>(pid));
      try {
        control_->call(Type::kSeed, w.bytes(), "growing the seed of the pod");
      } catch (const OsError& e) {
        if (e.error() != EXDEV) throw;
        throw OsError("ERR_ISOLATION", "open", EXDEV,
                      "the isolated pod does not see the file that is one of its streams");
      }
    };
    Value result = Value::map();
    result.set("initPid", static_cast<int64_t>(o.init_host_pid));
    rebuild_ = std::make_unique<Rebuild>(std::move(o), plan_);
    rebuild_->build(progress_.stop, progress_.done_bytes, progress_.total_bytes,
                    [this](const char* phase) { progress_.phase = phase; });
    Value notes = Value::list();
    for (const std::string& note : rebuild_->notes()) notes.push(note);
    return result.set("notes", std::move(notes));
  } catch (OsError& e) {
    e.during(std::string("rebuild: ") + progress_.phase.load());
    throw;
  }
}

UniqueFd RebuildJob::commit() {
  progress_.phase = "commit";
  fault_point("rebuild-commit");
  Writer w;
  w.number(static_cast<uint32_t>(plan_.at("firstPid").as_int(2, 1 << 22)));
  w.number(static_cast<uint32_t>(plan_.get_bool("firstEnded", false)));
  w.number(static_cast<int32_t>(plan_.get_int("firstStatus", 0)));
  control_->call(Type::kCommit, w.bytes(), "committing the pod");
  // The pod lives: whatever fails from here on must not be taken for a failed reattach. Threads that we
  // cannot put in order ourselves are let go of where they are, and find their own way home.
  try {
    fault_point("rebuild-committed");
    rebuild_->let_go();
  } catch (const OsError&) {
    rebuild_.reset();
  }
  return std::move(control_dup_);
}

}  // namespace virt
