#include "interpose/recorder.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <utility>
#include <vector>

#include "interpose/address.h"
#include "interpose/caller.h"
#include "interpose/outcome.h"
#include "interpose/path.h"
#include "sys/clocks.h"

namespace virt {
namespace {

constexpr size_t kMostDestinations = 1024, kMostWatched = 8192;
constexpr int64_t kPatienceNs = 20'000'000, kMostPatienceNs = 5'000'000'000;
constexpr int kTurns = 4;

std::string last_part(const std::string& path) {
  const size_t end = path.find_last_not_of('/');
  if (end == std::string::npos) return path;
  return path.substr(path.rfind('/', end) + 1, end - path.rfind('/', end));
}

// Whether the call has ended, by where its thread is now. One that runs may not have come to it yet (a machine under load).
bool is_over(const Watched& w, int64_t now_ns) {
  const std::string text = read_start(proc_file(w.call.question.tid, "syscall"));  // proc_pid_syscall(5)
  if (text.starts_with("running")) return now_ns - w.since_ns > kMostPatienceNs;
  const std::string number = std::to_string(w.call.question.number) + " ";
  return text.compare(0, number.size(), number) != 0;
}

const char* name_of(const Call& call, bool created) {
  static constexpr const char* kNames[] = {
      "write",  "remove", "rename",  "make", "make", "mode", "owner", "truncate", "bind", "connect",
      "listen", "send",   "execute", "root", "read", "look", "kill",  "socket",   "name", "send"};
  static_assert(std::size(kNames) == static_cast<size_t>(CallKind::kinds));
  return created ? "create" : kNames[static_cast<size_t>(call.kind)];
}

// Whether making `next` could hide how `w` ended.
bool may_hide(const Call& next, const Watched& w) {
  const bool opens = next.kind == CallKind::open && (next.flags & O_TRUNC) == 0;
  const bool looks =
      next.kind == CallKind::read || next.kind == CallKind::look || next.kind == CallKind::execute;
  return !looks && !(opens && w.call.kind == CallKind::open);
}

}  // namespace

void Recorder::end(uint64_t order) {
  const std::lock_guard lock(mutex_);
  answering_.erase(order);
}

uint64_t Recorder::begin(Call* begun) {
  Lock lock(mutex_);
  begun->order = ++newest_;
  answering_.insert(begun->order);
  const Call& call = *begun;
  if (watched_.empty() && !has_kept()) return call.order;
  if (const auto former = last_of_thread_.find(call.question.tid); former != last_of_thread_.end()) {
    const auto watched = former->second;
    watched->over = true;
    if (watched->call.socket && !watched->looked_at) settle(lock, watched, true);
  }
  if (call.kind == CallKind::rename) {
    lock.unlock();
    const bool moves = S_ISDIR(look_at(call.path, false).mode);  // paths change below it
    lock.lock();
    if (moves) settle_before_move(lock, call.order);
  }
  if (!call.path.empty()) settle_named(lock, last_part(call.path), call);
  if (!call.path2.empty()) settle_named(lock, last_part(call.path2), call);
  return call.order;
}

bool Recorder::look(Call call, Watched* watched) {
  watched->call = std::move(call);
  const Call& c = watched->call;
  watched->since_ns = monotonic_ns();
  if (c.kind == CallKind::kill) return kill(c.target, 0) == 0;
  if (c.socket) return c.entry->value < 0 || c.address_size > 0;
  if (c.path.empty() || is_made_up(c.path)) return false;
  if (c.kind == CallKind::rename) watched->before2 = look_at(c.path2, false);
  watched->before = look_at(c.path, follows(c));
  return may_change(c, watched->before);
}

Recorder::List::iterator Recorder::watch(Watched watched) {
  Lock lock(mutex_);
  // Nothing is lost for want of room: what was first is looked at now.
  while (watched_.size() >= kMostWatched) {
    const auto first = first_free();
    if (first == watched_.end()) break;
    settle(lock, first, true);
  }
  watched_.push_back(std::move(watched));
  const auto last = std::prev(watched_.end());
  const Call& call = last->call;
  last_of_thread_[call.question.tid] = last;
  if (!call.path.empty()) by_name_.emplace(last_part(call.path), last);
  if (!call.path2.empty()) by_name_.emplace(last_part(call.path2), last);
  last->looked_at = true;
  return last;
}

void Recorder::passed(List::iterator watched, bool after_all) {
  Outcome outcome = after_all ? Outcome::open : Outcome::nothing;
  // It may be closed at once, and is not while we have a dup: a few turns are enough for a call that does not wait.
  for (int turns = 0; watched->call.socket && outcome == Outcome::open && turns < kTurns; ++turns) {
    sched_yield();
    outcome = outcome_of(*watched);
  }
  if (outcome == Outcome::done) write_done(*watched);
  const Lock lock(mutex_);
  watched->looked_at = false;
  if (outcome != Outcome::open) forget(watched);
  looked_.notify_all();
}

Recorder::List::iterator Recorder::first_free() {
  return std::find_if(watched_.begin(), watched_.end(), [](const Watched& w) { return !w.looked_at; });
}

// Once at each that was asked about until then, waiting for who looks at it now. False if some stay, not knowing how they end.
bool Recorder::settle_each(Lock& lock, uint64_t until, bool sockets,
                           const std::function<bool(Lock&, List::iterator)>& is_last) {
  bool all = true;
  const uint64_t round = ++rounds_;
  for (;;) {
    const auto wanted = [&](const Watched& w) {
      return w.round != round && w.call.order <= until && (sockets || !w.call.socket);
    };
    auto w = std::find_if(watched_.begin(), watched_.end(),
                          [&](const Watched& x) { return wanted(x) && !x.looked_at; });
    if (w == watched_.end()) {
      if (std::none_of(watched_.begin(), watched_.end(), wanted)) return all;
      looked_.wait(lock);
      continue;
    }
    w->round = round;
    if (settle(lock, w, is_last(lock, w))) continue;
    all = false;
    watched_.splice(watched_.end(), watched_, w);  // to the end of the line
  }
}

// Paths are about to mean others: what was let pass before is looked at while its own still leads to it. A thread that has not
// come to its call yet is given a moment.
void Recorder::settle_before_move(Lock& lock, uint64_t order) {
  constexpr int kMoments = 20;
  const auto is_over = [](Lock&, List::iterator w) { return w->over; };
  for (int n = 0; n < kMoments && !settle_each(lock, order, false, is_over); ++n) {
    lock.unlock();
    const timespec moment{0, 100'000};
    nanosleep(&moment, nullptr);
    lock.lock();
  }
  write_kept(lock);
}

void Recorder::settle_named(Lock& lock, const std::string& name, const Call& next) {
  for (;;) {
    const auto [from, to] = by_name_.equal_range(name);
    const auto found = std::find_if(from, to, [&](const auto& entry) {
      const Watched& w = *entry.second;
      return may_hide(next, w) && w.looked_for != next.question.id;
    });
    if (found == to) return;
    const auto watched = found->second;
    if (watched->looked_at) {
      looked_.wait(lock);
      continue;
    }
    watched->looked_for = next.question.id;
    settle(lock, watched, watched->over || watched->call.question.tid == next.question.tid);
  }
}

void Recorder::write_done(const Watched& w) {
  write(w.call, w.call.kind == CallKind::open && !w.before.there, 0, w.asked);
}

bool Recorder::settle(Lock& lock, List::iterator watched, bool last) {
  watched->looked_at = true;
  lock.unlock();
  const Outcome outcome = outcome_of(*watched);
  // A socket that we hold may be in its own program's way.
  const bool keep = outcome == Outcome::done && !watched->call.socket;
  if (outcome == Outcome::done && !keep) write_done(*watched);
  lock.lock();
  watched->looked_at = false;
  looked_.notify_all();
  if (outcome == Outcome::open && !last) return false;
  forget(watched, keep);
  return true;
}

void Recorder::forget(List::iterator watched, bool keep) {
  const Call& call = watched->call;
  const auto forget_name = [&](const std::string& path) {
    if (path.empty()) return;
    const auto [from, to] = by_name_.equal_range(last_part(path));
    const auto found = std::find_if(from, to, [&](const auto& entry) { return entry.second == watched; });
    if (found != to) by_name_.erase(found);
  };
  forget_name(call.path);
  forget_name(call.path2);
  const auto of_thread = last_of_thread_.find(call.question.tid);
  if (of_thread != last_of_thread_.end() && of_thread->second == watched) last_of_thread_.erase(of_thread);
  if (keep)
    kept_.splice(kept_.end(), watched_, watched);
  else
    watched_.erase(watched);
}

// All of them: those too that another thread is writing.
void Recorder::write_kept(Lock& lock) {
  List kept;
  kept.swap(kept_);
  ++writing_;
  lock.unlock();
  for (const Watched& w : kept) write_done(w);
  kept.clear();
  lock.lock();
  --writing_;
  looked_.notify_all();
  looked_.wait(lock, [this] { return writing_ == 0; });
}

bool Recorder::catch_up(bool all) {
  const int64_t now = monotonic_ns();
  Lock lock(mutex_);
  // What is asked from here on waits for its turn: something before it may not be known yet.
  const uint64_t until = answering_.empty() || all ? newest_ : *answering_.begin() - 1;
  settle_each(lock, until, true, [&](Lock& held, List::iterator w) {
    if (all || w->over || now - w->since_ns <= kPatienceNs) return all || w->over;
    w->looked_at = true;
    held.unlock();
    const bool over = is_over(*w, now);
    held.lock();
    return over;
  });
  write_kept(lock);
  lock.unlock();
  return flush(until, all);
}

// Seldom: a program that waits for its own writes to reach the disk (fsync(2)) may wait for ours as well.
bool Recorder::flush(uint64_t until, bool now) {
  constexpr int64_t kPauseNs = 50'000'000;
  const int64_t time = monotonic_ns();
  if (!now && time - flushed_ns_ < kPauseNs) return journal_.is_whole();
  flushed_ns_ = time;
  return journal_.flush(now ? UINT64_MAX : until);
}

bool Recorder::behind() {
  {
    const std::lock_guard lock(mutex_);
    if (!watched_.empty() || has_kept()) return true;
  }
  return journal_.waits();  // after it: what is not watched any more is there
}

void Recorder::write_answered(const Call& call, int error, const std::string& asked, bool created) {
  if (call.socket || (!call.path.empty() && !is_made_up(call.path)) || error != 0)
    write(call, created, error, asked);
}

// Once a minute is enough to know whom it talks to.
bool Recorder::is_news(const Call& call, const std::string& address, int port) {
  constexpr int64_t kMinuteNs = 60'000'000'000;
  const std::string whom = std::to_string(call.who->pid) + " " + address + " " + std::to_string(port);
  const std::lock_guard lock(mutex_);
  if (sent_.size() >= kMostDestinations) sent_.clear();
  int64_t& last = sent_[whom];
  const int64_t now = monotonic_ns();
  if (last != 0 && now - last < kMinuteNs) return false;
  last = now;
  return true;
}

void Recorder::write(const Call& call, bool created, int error, const std::string& asked) {
  JournalLine line;
  line.text("time", journal_time(call.realtime_ns)).number("pid", call.who->pid);
  if (call.who->host_pid > 0) line.number("hostPid", call.who->host_pid);
  line.text("program", call.who->program).text("call", call.entry->name).text("kind", name_of(call, created));
  if (call.socket) {
    sockaddr_storage a = call.address;
    socklen_t size = call.address_size;
    // The port that the kernel chose, where it was to choose one.
    if (error == 0 && (call.kind == CallKind::bind || call.kind == CallKind::listen)) {
      size = sizeof a;
      getsockname(call.socket.get(), reinterpret_cast<sockaddr*>(&a), &size);
    }
    int port = -1;
    std::string text = address_text(a, size, &port);
    if (a.ss_family == AF_UNIX) {
      std::string path = call.path.empty() ? text : call.path;
      if (path.empty()) return;
      if (path[0] != '@' && path[0] != '/')
        path = read_link_of(proc_file(call.question.tid, "cwd")) + "/" + path;
      line.text("path", path[0] == '@' ? path : canonical_path(path));
    } else {
      line.text("address", text).number("port", port);
    }
    int type = 0;
    socklen_t length = sizeof type;
    getsockopt(call.socket.get(), SOL_SOCKET, SO_TYPE, &type, &length);
    line.text("socket", type == SOCK_STREAM ? "stream" : type == SOCK_DGRAM ? "datagram" : "other");
    const bool sends = call.kind == CallKind::send || call.kind == CallKind::message;
    if (sends && !is_news(call, text, port)) return;
  } else if (call.kind == CallKind::kill) {
    line.number("target", call.target).number("signal", call.flags);
  } else if (!call.path.empty()) {
    line.text("path", canonical_path(call.path));
    if (!call.path2.empty()) line.text("to", canonical_path(call.path2));
  }
  const uint64_t value = call.argument(call.entry->value);
  if (call.kind == CallKind::mode) {
    char mode[8];
    std::snprintf(mode, sizeof mode, "%04o", static_cast<unsigned>(value & 07777));
    line.text("mode", mode);
  }
  if (call.kind == CallKind::truncate) line.number("sizeBytes", static_cast<int64_t>(value));
  if (call.kind == CallKind::owner) {
    line.number("uid", static_cast<int32_t>(value));
    line.number("gid", static_cast<int32_t>(call.argument(call.entry->value + 1)));
  }
  if (!asked.empty()) line.text("asked", asked);
  const char* name = error == 0 ? "ok" : strerrorname_np(error);
  line.text("result", name == nullptr ? "error" : name);
  journal_.append(call.order, line);
  ++written_;
}

}  // namespace virt
