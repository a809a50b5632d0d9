#include "init/keeper.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <utility>

#include "init/namespaces.h"
#include "init/rights.h"
#include "init/seed.h"
#include "init/spawn.h"
#include "interpose/caller.h"

namespace virt::init {

using protocol::pack;
using protocol::Stdio;
using protocol::Type;
using protocol::Writer;

namespace {

constexpr size_t kSlowViewerBytes = 256 << 10;
constexpr time_t kStuckViewerSeconds = 5;
constexpr size_t kMostConnections = 256;
constexpr size_t kMostWaitingInput = 1 << 20;

// What a poll event is about: kind in the high half, index in the low one.
enum class Source : uint32_t { kSignals, kListener, kConnection, kStream1, kStream2, kInput, kHooks };
uint64_t tag(Source source, size_t index) { return (static_cast<uint64_t>(source) << 32) | index; }

}  // namespace

Keeper::Keeper(protocol::LaunchPlan plan, UniqueFd state_dir, UniqueFd listener, UniqueFd first_supervisor,
               UniqueFd socket_dir, UniqueFd own_program, UniqueFd host_proc, Interposer& interposer)
    : plan_(std::move(plan)),
      state_dir_(std::move(state_dir)),
      listener_(std::move(listener)),
      socket_dir_(std::move(socket_dir)),
      own_program_(std::move(own_program)),
      host_proc_(std::move(host_proc)),
      interposer_(interposer) {
  connections_.push_back(std::make_unique<Connection>(std::move(first_supervisor)));
  connections_.back()->subscribed = true;
  rebuilding_ = (plan_.flags & protocol::kPlanRebuild) != 0;
  connections_.back()->seeding = rebuilding_;  // whoever launches us for a rebuild does it, from the start
  // A request to view it could come when a program has written and ended already.
  if (plan_.stdio != Stdio::kInherit && (plan_.flags & protocol::kPlanViewed) != 0) {
    connections_.back()->console = 0;
    connections_.back()->patient = (plan_.flags & protocol::kPlanPatient) != 0;
  }
}

int Keeper::run() {
  if (const Step s = prepare(); s.failed()) {
    fail(s);
    hang_up();
    return 1;
  }
  loop();
  drain();
  if (far_sockets_ && !detached_ && !rebuilding_) far_sockets_->finish();
  return 0;
}

Step Keeper::prepare() {
  sigset_t all;
  sigfillset(&all);
  sigprocmask(SIG_SETMASK, &all, nullptr);
  signals_.reset(signalfd(-1, &all, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!signals_) return failed("setting up the keeper's loop");
  if (listen(listener_.get(), 64) != 0) return failed("listening for supervisors");
  log_.open(state_dir_.get());
  Interposer::Setup setup;
  setup.recording = static_cast<Recording>(plan_.recording);
  setup.covered = plan_.covered;
  setup.rules = std::move(plan_.rules);
  setup.state_dir = state_dir_.get();
  setup.host_proc.reset(fcntl(host_proc_.get(), F_DUPFD_CLOEXEC, 0));
  setup.sockets = sockets();
  setup.paused = rebuilding_;
  setup.hooked = (plan_.flags & protocol::kPlanHooked) != 0;
  setup.errands = (plan_.flags & protocol::kPlanFar) != 0;
  connections_.back()->hooks = setup.hooked;
  errno = interposer_.start(std::move(setup));
  if (errno != 0) return failed("starting the interposer");

  const bool input = (plan_.flags & protocol::kPlanKeepInput) != 0;
  if (plan_.stdio != Stdio::kInherit) {
    consoles_.push_back(std::make_unique<Console>());
    const int index = rebuilding_ && plan_.stdio == Stdio::kTerminal ? static_cast<int>(plan_.pts_index) : -1;
    if (const Step s = consoles_[0]->make(plan_.stdio, plan_.rows, plan_.columns, index, input); s.failed()) {
      return s;
    }
  }
  return rebuilding_ ? done() : start_program();
}

// Remembers what the launcher's streams are, so that a capture can tell them from the program's own handles.
// Only the identity: a descriptor kept open here would keep a pipe's reader from seeing its end.
void Keeper::note_streams(const int fds[3]) {
  for (int i = 0; i < 3; ++i) {
    struct stat st {};
    protocol::Status::Stream s;
    if (fstat(fds[i], &st) == 0 && (S_ISFIFO(st.st_mode) || S_ISSOCK(st.st_mode) || S_ISCHR(st.st_mode))) {
      s.device = st.st_dev;
      s.inode = st.st_ino;
    }
    streams_.push_back(s);
  }
}

Step Keeper::start_program() {
  if (const Step s = limit_namespaces(plan_); s.failed()) return s;
  Program p = program_of(plan_);
  for (int i = 0; i < 3; ++i) p.stdio[i] = consoles_.empty() ? i : consoles_[0]->program_fd(i);
  note_streams(p.stdio);
  int error = 0;
  first_pid_ = spawn(p, &error);
  if (first_pid_ < 0) {
    errno = std::abs(error);
    return failed(error < 0 ? kEnteringDirectory : "starting the program");
  }
  if (!consoles_.empty()) {
    consoles_[0]->owner = first_pid_;
    consoles_[0]->started();
  }
  forget_launcher_streams();
  plan_.argv.clear();
  plan_.env.clear();
  tell(Type::kStarted, pack(static_cast<uint32_t>(first_pid_)));
  return done();
}

void Keeper::fail(const Step& step) {
  Writer w;
  w.number(static_cast<int32_t>(step.error));
  w.text(step.what);
  tell(Type::kFailed, w.bytes());
  record("failed " + std::to_string(step.error) + "\n");
  for (auto& c : connections_) c->flush();
}

void Keeper::record(const std::string& text) {
  // Written aside and renamed: a reader sees a whole record or none.
  UniqueFd fd(
      openat(state_dir_.get(), "exit.new", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (fd && write(fd.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size())) {
    renameat(state_dir_.get(), "exit.new", state_dir_.get(), "exit");
  }
}

void Keeper::tell(Type type, std::string_view payload) {
  for (auto& c : connections_) {
    if (c->open() && c->subscribed) c->event(type, payload);
  }
}

void Keeper::loop() {
  while (poll_once()) {
  }
}

// One turn: register interest anew (a handful of descriptors; simpler and safer than keeping it in step),
// wait, serve. False when the pod has ended.
bool Keeper::poll_once() {
  std::vector<pollfd> fds;
  std::vector<uint64_t> tags;
  const auto add = [&](int fd, short events, uint64_t t) {
    if (fd < 0 || events == 0) return;
    fds.push_back({fd, events, 0});
    tags.push_back(t);
  };
  int timeout = -1;
  // Requests before all else: one who asked to see a program's output is there before its end is noticed.
  for (size_t i = 0; i < connections_.size(); ++i) {
    Connection& c = *connections_[i];
    if (!c.open()) continue;
    if (!c.flush()) {
      drop(c);
      continue;
    }
    short events = c.unsent() > 0 ? POLLIN | POLLOUT : POLLIN;
    if (c.console >= 0) {
      Console& console = *consoles_[static_cast<size_t>(c.console)];
      if (console.input_size() > kMostWaitingInput) events &= ~POLLIN;
      if (c.unsent() > kSlowViewerBytes) {
        if (!c.patient && monotonic_seconds() - c.last_progress() > kStuckViewerSeconds) {
          drop(c);  // a screen nobody reads must not stop the pod
          continue;
        }
        console.paused = true;
        timeout = 1000;
      }
    }
    add(c.fd(), events, tag(Source::kConnection, i));
  }
  if (ended_) return false;  // whoever was rebuilding it is gone
  add(signals_.get(), POLLIN, tag(Source::kSignals, 0));
  add(listener_.get(), POLLIN, tag(Source::kListener, 0));
  add(interposer_.news_fd(), POLLIN, tag(Source::kHooks, 0));
  for (size_t i = 0; i < consoles_.size(); ++i) {
    Console& console = *consoles_[i];
    if (!console.paused) {
      add(console.source(1), POLLIN, tag(Source::kStream1, i));
      add(console.source(2), POLLIN, tag(Source::kStream2, i));
    }
    console.paused = false;
    if (console.input_waits() && console.flush_input()) {
      add(console.input_fd(), POLLOUT, tag(Source::kInput, i));
    }
  }
  if (poll(fds.data(), fds.size(), timeout) < 0 && errno != EINTR) return false;
  for (size_t k = 0; k < fds.size(); ++k) {
    if (fds[k].revents == 0) continue;
    const size_t i = tags[k] & 0xffffffff;
    switch (static_cast<Source>(tags[k] >> 32)) {
      case Source::kSignals:
        reap();
        break;
      case Source::kListener:
        accept_supervisor();
        break;
      case Source::kConnection:
        if (connections_[i]->open()) serve(*connections_[i]);
        break;
      case Source::kStream1:
        pump(*consoles_[i], static_cast<int>(i), 1);
        break;
      case Source::kStream2:
        pump(*consoles_[i], static_cast<int>(i), 2);
        break;
      case Source::kHooks:
        ask_hooks();
        break;
      case Source::kInput:
        break;  // flushed at the top of the next turn
    }
  }
  std::erase_if(connections_, [](const auto& c) { return !c->open(); });
  return !ended_;
}

void Keeper::accept_supervisor() {
  UniqueFd fd(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (!fd || connections_.size() >= kMostConnections) return;
  // The socket lies in a private directory; this check costs nothing and does not rely on that. Seen from in
  // here every user but our own is the overflow user.
  ucred peer{};
  socklen_t size = sizeof peer;
  if (getsockopt(fd.get(), SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) return;
  if (peer.uid != getuid() && peer.uid != 0) return;
  connections_.push_back(std::make_unique<Connection>(std::move(fd)));
}

void Keeper::drop(Connection& c) {
  const bool seeding = c.seeding;
  c.close();
  if (std::exchange(c.holding, false) && !detached_) holder_.reset();
  if (std::exchange(c.far_frozen, false) && far_sockets_ && !detached_) {
    (void)interposer_.run_unfiltered([this] {
      far_sockets_->go_on();
      return 0;
    });
  }
  if (std::exchange(c.hooks, false)) interposer_.set_hooked(false);
  // Half a pod is no pod: whoever was rebuilding it is gone before the final word.
  if (seeding && rebuilding_) {
    end_everything();
    ended_ = true;
  }
}

void Keeper::end_everything() {
  kill(-1, SIGKILL);
  while (waitpid(-1, nullptr, __WALL) > 0 || errno == EINTR) {
  }
}

void Keeper::reap() {
  signalfd_siginfo info{};
  while (read(signals_.get(), &info, sizeof info) == sizeof info) {
    // The host is going down, or somebody asks the pod from outside: hand it to the first program.
    const auto signal = static_cast<int>(info.ssi_signo);
    if ((signal == SIGTERM || signal == SIGHUP || signal == SIGINT) && first_pid_ > 0 && !first_ended_) {
      kill(first_pid_, signal);
    }
  }
  for (;;) {
    siginfo_t end{};
    const int found = waitid(P_ALL, 0, &end, WEXITED | WNOHANG | WNOWAIT | __WALL);
    if (found < 0 && errno == EINTR) continue;
    if (found < 0 && errno == ECHILD) {
      // No child, so no process at all: orphans would be ours. A pod that is still to be rebuilt is not over.
      ended_ = !rebuilding_ || commit_ != nullptr;
      return;
    }
    const pid_t pid = end.si_pid;
    if (found != 0 || pid <= 0) return;
    const UniqueFd process(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
    const pid_t host_pid = pid_seen_by(host_proc_.get(), process.get());
    int status = 0;
    while (waitpid(pid, &status, __WALL) < 0 && errno == EINTR) {
    }
    if (rebuilding_ || detached_) continue;  // what is detached has not ended
    const bool first = pid == first_pid_ && !first_ended_;
    if (first) {
      first_ended_ = true;
      first_status_ = status;
    }
    // Its last words come before the news of its end: whoever views it leaves then.
    for (size_t i = 0; i < consoles_.size(); ++i) {
      if (consoles_[i]->owner == pid) pump_all(*consoles_[i], static_cast<int>(i));
    }
    tell(Type::kExited, pack(static_cast<uint32_t>(pid), static_cast<int32_t>(status), uint32_t{first},
                             static_cast<uint32_t>(host_pid)));
  }
}

void Keeper::pump(Console& console, int id, int stream) {
  std::string bytes;
  console.read_from(stream, &bytes);
  if (bytes.empty()) return;
  if (id == 0) log_.append(bytes);
  for (auto& c : connections_) {
    if (c->open() && c->console == id) c->event(Type::kOutput, pack(static_cast<uint32_t>(stream)) + bytes);
  }
}

// All that waits there now.
void Keeper::pump_all(Console& console, int id) {
  for (const int stream : {1, 2}) {
    // As much as a terminal or a pipe holds: others may go on writing.
    for (int n = 0; n < 64; ++n) {
      const int fd = console.source(stream);
      pollfd p{fd, POLLIN, 0};
      if (fd < 0 || poll(&p, 1, 0) <= 0 || (p.revents & POLLIN) == 0) break;
      pump(console, id, stream);
    }
  }
}

// The pod is over: write down how, pass on what was still in the pipes, say so, and give viewers time to take
// it.
void Keeper::drain() {
  listener_.reset();  // whoever asks from here on is told that the pod is gone
  for (size_t i = 0; i < consoles_.size(); ++i) {
    pump_all(*consoles_[i], static_cast<int>(i));
  }
  (void)interposer_.catch_up();  // what is not in the journal now never will be
  // Before anybody hears of it: whoever reattaches at once would find them, and lose them.
  remove_mount_points();
  if (detached_) {
    record("detached\n");
  } else if (first_ended_) {
    record("status " + std::to_string(first_status_) + "\n");
  } else {
    record("failed 0\n");
  }
  tell(Type::kGone, pack(uint32_t{detached_}));
  for (;;) {
    std::vector<pollfd> waiting;
    for (auto& c : connections_) {
      if (!c->open()) continue;
      const time_t patience = c->patient ? 60 : kStuckViewerSeconds;
      if (!c->flush() || (c->unsent() > 0 && monotonic_seconds() - c->last_progress() > patience)) {
        c->close();
      } else if (c->unsent() > 0) {
        waiting.push_back({c->fd(), POLLOUT, 0});
      }
    }
    if (waiting.empty()) break;
    poll(waiting.data(), waiting.size(), 1000);
  }
  hang_up();
}

// Ours first, then theirs: one who writes to a socket that is closed gets EPIPE and may not read what still
// lies there.
void Keeper::hang_up() {
  constexpr time_t kPatienceSeconds = 2;
  const time_t end = monotonic_seconds() + kPatienceSeconds;
  for (auto& c : connections_) {
    if (c->open()) shutdown(c->fd(), SHUT_WR);
  }
  for (;;) {
    std::vector<pollfd> waiting;
    for (auto& c : connections_) {
      if (c->open()) waiting.push_back({c->fd(), POLLIN, 0});
    }
    if (waiting.empty() || monotonic_seconds() > end) return;
    poll(waiting.data(), waiting.size(), 500);
    for (auto& c : connections_) {
      char unheard[4096];
      ssize_t n = 1;
      while (c->open() && n > 0) n = read(c->fd(), unheard, sizeof unheard);
      if (c->open() && (n == 0 || errno != EAGAIN)) c->close();
    }
  }
}

}  // namespace virt::init
