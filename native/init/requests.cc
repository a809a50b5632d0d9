// The keeper's requests: what it does when a supervisor asks, and what it answers.
#include <fcntl.h>
#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <cerrno>
#include <climits>
#include <csignal>
#include <cstdlib>

#include "init/keeper.h"

#include "init/mounts.h"
#include "init/rights.h"
#include "init/seed.h"
#include "init/spawn.h"

namespace virt::init {

using protocol::pack;
using protocol::Reader;
using protocol::Stdio;
using protocol::Type;

void Keeper::serve(Connection& c) {
  const bool alive = c.receive();
  Frame f;
  while (c.open() && c.next(&f)) handle(c, f);
  if (!alive) drop(c);
}

void Keeper::handle(Connection& c, const Frame& f) {
  switch (f.type) {
    case Type::kHello:
      c.reply(f, 0, encode(status()));
      return;
    case Type::kSignal:
      handle_signal(c, f);
      return;
    case Type::kExec:
      handle_exec(c, f);
      return;
    case Type::kSubscribe:
      c.subscribed = true;
      c.reply(f, 0);
      return;
    case Type::kAttach:
      handle_attach(c, f);
      return;
    case Type::kInput:
      if (c.console >= 0 && !c.read_only) {
        Console& console = *consoles_[static_cast<size_t>(c.console)];
        if (f.payload.empty()) {
          console.end_input();
        } else {
          console.input(f.payload);
        }
      }
      return;
    case Type::kResize: {
      Reader r(f.payload);
      const auto rows = r.number<uint16_t>(), columns = r.number<uint16_t>();
      if (r.done() && c.console >= 0 && !c.read_only)
        consoles_[static_cast<size_t>(c.console)]->resize(rows, columns);
      return;
    }
    case Type::kLock:
      handle_lock(c, f);
      return;
    case Type::kUnlock:
      c.lock.clear();
      c.reply(f, 0);
      return;
    case Type::kCatchUp:
      c.reply(f, interposer_.catch_up());
      return;
    case Type::kOpen:
      handle_open(c, f);
      return;
    case Type::kMount: {
      Reader r(f.payload);
      const std::string from = r.text(), to = r.text();
      const UniqueFd tree = r.done() ? clone_tree(AT_FDCWD, from) : UniqueFd();
      c.reply(f, tree && mount_tree(tree, to) ? 0 : errno);
      return;
    }
    case Type::kRelease:
      handle_release(c, f);
      return;
    case Type::kSeed:
      handle_seed(c, f);
      return;
    case Type::kCommit:
      handle_commit(c, f);
      return;
    case Type::kRules:
      c.reply(f, interposer_.runs() ? interposer_.change_rules(f.payload) : EOPNOTSUPP);
      return;
    case Type::kHook:
      handle_hook(c, f);
      return;
    case Type::kAnswer:
      handle_answer(c, f);
      return;
    case Type::kHold:
      handle_hold(c, f);
      return;
    case Type::kRelay:
      handle_relay(c, f);
      return;
    case Type::kFar:
      handle_far(c, f);
      return;
    case Type::kSocket:
      handle_socket(c, f);
      return;
    default:
      c.reply(f, EOPNOTSUPP);
  }
}

void Keeper::handle_release(Connection& c, const Frame& f) {
  Reader r(f.payload);
  const bool detached = r.number<uint32_t>() != 0;
  if (!r.done()) return c.reply(f, EINVAL);
  // What can still fail comes first.
  if (detached && holder_) {
    if (const int error = interposer_.run_unfiltered([this] { return holder_->start(); }); error != 0)
      return c.reply(f, error);
  }
  detached_ = detached;
  kill(-1, SIGKILL);  // one call: nothing in the pod runs after it
  if (detached_ && c.far_frozen && far_sockets_) far_sockets_->leave();
  c.reply(f, 0);
  reap();
}

int Keeper::viewers_of(int console) const {
  int n = 0;
  for (const auto& c : connections_) n += c->open() && c->console == console ? 1 : 0;
  return n;
}

protocol::Status Keeper::status() const {
  protocol::Status s;
  s.first_pid = static_cast<uint32_t>(first_pid_);
  s.exited = first_ended_ ? 1 : 0;
  s.wait_status = first_status_;
  s.stdio = plan_.stdio;
  s.viewers = static_cast<uint32_t>(viewers_of(0));
  if (!consoles_.empty()) {
    s.terminal_fd = consoles_[0]->master();
    s.terminal_index = consoles_[0]->index();
  }
  s.rebuilding = rebuilding_ ? 1 : 0;
  s.streams = streams_;
  return s;
}

void Keeper::handle_signal(Connection& c, const Frame& f) {
  Reader r(f.payload);
  auto pid = static_cast<pid_t>(r.number<uint32_t>());
  const bool group = r.number<uint32_t>() != 0;
  const auto signal = static_cast<int>(r.number<uint32_t>());
  if (!r.done() || pid < 0 || pid == 1 || signal > SIGRTMAX) {
    c.reply(f, EINVAL);
    return;
  }
  if (pid == 0) {
    if (first_pid_ <= 0 || first_ended_) {
      c.reply(f, ESRCH);
      return;
    }
    pid = first_pid_;
  }
  c.reply(f, kill(group ? -pid : pid, signal) == 0 ? 0 : errno);
}

void Keeper::handle_exec(Connection& c, const Frame& f) {
  auto fds = c.take_fds();
  protocol::ExecPlan plan;
  if (rebuilding_ || !decode(f.payload, &plan) || (plan.stdio == Stdio::kInherit) != (fds.size() == 3) ||
      (plan.stdio != Stdio::kInherit && c.console >= 0)) {
    c.reply(f, EINVAL);
    return;
  }
  Program p = program_of(plan);
  std::unique_ptr<Console> console;
  if (plan.stdio == Stdio::kInherit) {
    for (size_t i = 0; i < 3; ++i) p.stdio[i] = fds[i].get();
  } else {
    console = std::make_unique<Console>();
    if (const Step s = console->make(plan.stdio, plan.rows, plan.columns, -1, true); s.failed()) {
      c.reply(f, s.error);
      return;
    }
    for (int i = 0; i < 3; ++i) p.stdio[i] = console->program_fd(i);
  }
  int error = 0;
  const pid_t pid = spawn(p, &error);
  if (pid < 0) {
    c.reply(f, std::abs(error), error < 0 ? kEnteringDirectory : "");
    return;
  }
  note_streams(p.stdio);
  if (console) {
    console->owner = pid;
    console->started();
    if (consoles_.empty()) consoles_.push_back(std::make_unique<Console>());  // 0 stays the first program's
    consoles_.push_back(std::move(console));
    c.console = static_cast<int>(consoles_.size()) - 1;
    c.patient = plan.stdio == Stdio::kStreams;
  }
  c.subscribed = true;
  c.reply(f, 0, pack(static_cast<uint32_t>(pid)));
}

void Keeper::handle_attach(Connection& c, const Frame& f) {
  Reader r(f.payload);
  const auto flags = r.number<uint32_t>();
  if (!r.done() || consoles_.empty() || consoles_[0]->kind() == Stdio::kInherit) {
    c.reply(f, r.done() ? ENOTTY : EINVAL);
    return;
  }
  c.console = 0;
  c.read_only = (flags & 1) != 0;
  c.patient = (flags & 2) != 0;
  c.subscribed = true;
  c.reply(f, 0, pack(static_cast<uint32_t>(consoles_[0]->kind())));
  if ((flags & 4) != 0) consoles_[0]->redraw();
}

void Keeper::handle_lock(Connection& c, const Frame& f) {
  for (const auto& other : connections_) {
    if (other.get() != &c && other->open() && !other->lock.empty()) {
      c.reply(f, EBUSY, other->lock);
      return;
    }
  }
  c.lock = f.payload.empty() ? "a command" : f.payload;
  c.reply(f, 0);
}

void Keeper::handle_open(Connection& c, const Frame& f) {
  Reader r(f.payload);
  const auto flags = static_cast<int>(r.number<uint32_t>());
  const std::string path = r.text();
  const int fd = r.done() ? open(path.c_str(), flags | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0600) : -1;
  c.reply(f, fd >= 0 ? 0 : errno, {}, fd);
}

void Keeper::handle_seed(Connection& c, const Frame& f) {
  Reader r(f.payload);
  SeedPlan plan;
  plan.region = r.number<uint64_t>();
  plan.size = r.number<uint64_t>();
  plan.pid = static_cast<pid_t>(r.number<uint32_t>());
  if (!r.done() || !rebuilding_ || commit_ != nullptr) {
    c.reply(f, EINVAL);
    return;
  }
  const auto size = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  UniqueFd memory(memfd_create("virt-run-commit", MFD_CLOEXEC));
  void* page = MAP_FAILED;
  if (memory && ftruncate(memory.get(), static_cast<off_t>(size)) == 0)
    page = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, memory.get(), 0);
  if (page == MAP_FAILED) {
    c.reply(f, errno);
    return;
  }
  commit_ = static_cast<int32_t*>(page);
  plan.commit = memory.get();
  plan.filtered = interposer_.runs();
  plan.isolated = isolated();
  plan.sockets = sockets();
  for (int i = 0; i < 3; ++i) plan.stdio[i] = consoles_.empty() ? i : consoles_[0]->program_fd(i);
  note_streams(plan.stdio);
  const pid_t pid = grow_seed(plan, own_program_.get());
  c.reply(f, pid > 0 ? 0 : -pid, pack(static_cast<uint32_t>(pid > 0 ? pid : 0)));
}

// What stays when the pod is released. Until then it is the connection's: whoever detaches may give up, or die.
void Keeper::handle_hold(Connection& c, const Frame& f) {
  auto fds = c.take_fds();
  Reader r(f.payload);
  const std::string name = r.text(), key = r.text(), address = r.text();
  const auto cut_limit_ms = r.number<uint32_t>();
  const auto count = r.number<uint32_t>();
  if (!r.ok() || count > protocol::kMostHeldInFrame || rebuilding_ || (holder_ && !c.holding))
    return c.reply(f, EINVAL);
  if (count > fds.size()) return c.reply(f, EMFILE);  // the kernel leaves out those there is no room for
  if (!holder_) {
    holder_ = std::make_unique<Holder>();
    c.holding = true;
    int error = holder_->listen(socket_dir_.get(), name, key);
    if (error == 0 && !address.empty()) error = holder_->listen_for_others(address, cut_limit_ms);
    if (error != 0) {
      holder_.reset();
      return c.reply(f, error);
    }
  }
  int error = 0;
  for (uint32_t i = 0; i < count && error == 0; ++i) {
    const auto id = r.number<uint32_t>();
    const auto sort = r.number<protocol::HeldSort>();
    error = r.ok() ? holder_->add(id, sort, std::move(fds[i])) : EINVAL;
  }
  c.reply(f, error, pack(uint32_t{holder_->port()}));
}

void Keeper::handle_relay(Connection& c, const Frame& f) {
  protocol::FarPlan plan;
  if (!decode(f.payload, &plan) || !rebuilding_ || !c.seeding) return c.reply(f, EINVAL);
  const UniqueFd state = plan.has_state != 0 ? c.take_fd() : UniqueFd();
  const UniqueFd unread = c.take_fd();
  std::vector<UniqueFd> made;
  const int error = interposer_.run_unfiltered([&] {
    if (!far_sockets_) far_sockets_ = std::make_unique<FarSockets>();
    return far_sockets_->make(plan, state.get(), unread.get(), &made);
  });
  if (error != 0) return c.reply(f, error);
  std::vector<int> fds;
  for (const UniqueFd& fd : made) fds.push_back(fd.get());
  c.reply_with(f, pack(static_cast<uint32_t>(fds.size())), fds);
}

void Keeper::handle_far(Connection& c, const Frame& f) {
  Reader r(f.payload);
  const bool freeze = r.number<uint32_t>() != 0;
  if (!r.done() || rebuilding_) return c.reply(f, EINVAL);
  std::vector<protocol::FarState> states;
  std::vector<UniqueFd> files;
  if (far_sockets_) {
    c.far_frozen = freeze;
    uint64_t inode = 0;
    if (const int error = far_sockets_->look(&states, freeze ? &files : nullptr, &inode); error != 0)
      return c.reply(f, error, pack(inode));
  }
  std::vector<int> fds;
  for (const UniqueFd& fd : files) fds.push_back(fd.get());
  c.reply_with(f, encode(states), fds);
}

void Keeper::handle_socket(Connection& c, const Frame& f) {
  Reader r(f.payload);
  const auto family = static_cast<int>(r.number<uint32_t>()), type = static_cast<int>(r.number<uint32_t>()),
             protocol = static_cast<int>(r.number<uint32_t>());
  errno = EINVAL;
  const int fd = r.done() ? socket(family, type | SOCK_CLOEXEC, protocol) : -1;
  c.reply(f, fd >= 0 ? 0 : errno, {}, fd);
}

void Keeper::handle_commit(Connection& c, const Frame& f) {
  Reader r(f.payload);
  const auto first = static_cast<pid_t>(r.number<uint32_t>());
  const auto ended = r.number<uint32_t>() != 0;
  const auto wait_status = r.number<int32_t>();
  if (!r.done() || !rebuilding_ || !c.seeding || commit_ == nullptr) {
    c.reply(f, EINVAL);
    return;
  }
  if (const Step s = limit_namespaces(plan_); s.failed()) {
    c.reply(f, s.error);
    return;
  }
  // Its first connections may be read from as soon as it runs.
  if (far_sockets_) {
    if (const int error = interposer_.run_unfiltered([this] { return far_sockets_->begin(); }); error != 0) {
      c.reply(f, error);
      return;
    }
  }
  // The one step that makes it a pod: every thread, stopped or parked, is free to go home from here on, and
  // nothing depends on the engine any more.
  __atomic_store_n(commit_, 1, __ATOMIC_SEQ_CST);
  syscall(SYS_futex, commit_, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
  rebuilding_ = false;
  interposer_.go_on();
  first_pid_ = first;
  first_ended_ = ended;
  first_status_ = wait_status;
  if (!consoles_.empty()) {
    consoles_[0]->owner = first;
    consoles_[0]->started();
  }
  forget_launcher_streams();
  munmap(const_cast<int32_t*>(commit_), static_cast<size_t>(sysconf(_SC_PAGESIZE)));
  commit_ = nullptr;
  c.reply(f, 0);
  tell(Type::kStarted, pack(static_cast<uint32_t>(first)));
  reap();
}

void Keeper::handle_hook(Connection& c, const Frame& f) {
  Reader r(f.payload);
  const bool on = r.number<uint32_t>() != 0;
  if (!r.done() || !interposer_.runs()) {
    c.reply(f, r.done() ? EOPNOTSUPP : EINVAL);
    return;
  }
  for (auto& other : connections_) {
    if (other.get() != &c && other->hooks && on) {
      c.reply(f, EBUSY);
      return;
    }
  }
  c.hooks = on;
  interposer_.set_hooked(on);
  c.reply(f, 0);
}

void Keeper::handle_answer(Connection& c, const Frame& f) {
  HookAnswer answer;
  if (!c.hooks || !HookAnswer::decode(f.payload, &answer)) return;
  interposer_.answered(answer, answer.verdict == HookVerdict::inject ? c.take_fd() : UniqueFd());
}

void Keeper::ask_hooks() {
  for (const std::string& ask : interposer_.take_news()) {
    for (auto& c : connections_) {
      if (c->open() && c->hooks) c->event(Type::kAsk, ask);
    }
  }
}

}  // namespace virt::init
