#include <sys/random.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/error.h"
#include "base/fault.h"
#include "engine/jobs.h"
#include "move/wire_sink.h"
#include "resources/far_socket.h"
#include "resources/inet_address.h"
#include "resources/tcp_repair.h"
#include "sys/memory_file.h"

namespace virt {

using protocol::Type;
using protocol::Writer;

CaptureJob::CaptureJob(const Value& options, std::shared_ptr<Wire> wire, Progress& progress)
    : control_(ControlClient::connect(options.at("socket").as_string())),
      progress_(progress),
      wire_(std::move(wire)) {
  CaptureOptions o;
  o.init_host_pid = control_.peer_pid();
  const protocol::Status status = control_.hello();
  for (const auto& s : status.streams) o.streams.emplace_back(s.device, s.inode);
  if (status.terminal_fd >= 0) {
    terminal_ = take_from(o.init_host_pid, status.terminal_fd, kTakingTerminal);
    o.terminal_master = terminal_.get();
    o.terminal_index = status.terminal_index;
  }
  if (const Value* drop = options.find("drop")) {
    for (const Value& kind : drop->as_list()) o.drop.insert(kind.as_string());
  }
  if (const Value* remapped = options.find("remapped")) {
    for (const Value& path : remapped->as_list()) o.remapped.insert(path.as_string());
  }
  if (const Value* tcp = options.find("tcp")) {
    o.tcp.otherwise = tcp->at("otherwise").as_string();
    for (const Value& r : tcp->at("rules").as_list())
      o.tcp.rules.push_back(
          {r.at("policy").as_string(), r.get_string("address", ""), static_cast<int>(r.get_int("port", 0))});
  }
  o.hold = options.get_bool("hold", false);
  leave_ = o.hold && options.get_bool("leave", false);
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
  if (!wire_) return;
  uint64_t key = 0;
  if (getrandom(&key, sizeof key, 0) != sizeof key) throw OsError("getrandom", errno, "preparing a move");
  precopy_ = std::make_unique<Precopy>(std::make_unique<WireSink>(wire_, key));
  options_.precopy = precopy_.get();
}

Value CaptureJob::track() {
  options_.arm = true;
  // What leads through holders elsewhere stands still only in the last stop.
  options_.leave = false;
  if (options_.hold) options_.far = [this] { return look_far(false); };
  freeze_and_survey();
  options_.arm = false;
  capture_->thaw();
  capture_.reset();
  progress_.phase = "copy";
  return record_;
}

Value CaptureJob::copy() {
  const Precopy::Round round = precopy_->round(options_.threads, progress_.stop, progress_.done_bytes);
  return Value::map()
      .set("dirtyBytes", static_cast<int64_t>(round.dirty_bytes))
      .set("watched", static_cast<int64_t>(round.watched));
}

Value CaptureJob::survey() {
  options_.leave = leave_;
  if (options_.hold) options_.far = [this] { return look_far(leave_); };
  freeze_and_survey();
  return record_;
}

void CaptureJob::freeze_and_survey() {
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
}

FarWays CaptureJob::look_far(bool freeze) {
  Writer w;
  w.number(uint32_t{freeze});
  ControlClient::Reply reply;
  std::string cause;
  try {
    reply = control_.call(Type::kFar, w.bytes(), "asking for the pod's relays", {}, &cause);
  } catch (const OsError& e) {
    if (e.error() != EPERM && e.error() != ENOBUFS) throw;
    OsError known("ERR_CONNECTION", "relay", e.error(),
                  "what a program has not read of a connection from another host cannot be taken along");
    if (const auto user = capture_->user_of_socket(protocol::Reader(cause).number<uint64_t>()))
      known.in_process(user->first).on_fd(user->second);
    throw known;
  }
  std::vector<protocol::FarState> states;
  if (!decode(reply.payload, &states) || (freeze && reply.fds.size() != states.size()))
    throw OsError("recvmsg", EPROTO, "asking for the pod's relays");
  FarWays far;
  far_ = Value::list();
  far_listeners_.clear();
  for (size_t i = 0; i < states.size(); ++i) {
    const auto way = [i](uint32_t channel) { return FarWays::Way{static_cast<int>(i), channel}; };
    for (const auto& [channel, inode] : states[i].sockets) far.by_inode[inode] = way(channel);
    for (const protocol::FarClient& c : states[i].clients) {
      sa_family_t family = AF_UNSPEC;
      std::memcpy(&family, c.local.data(), std::min(c.local.size(), sizeof family));
      if (family == AF_UNIX) {
        far.by_peer[c.inode] = way(c.channel);
      } else {
        far.by_addresses[c.peer + c.local] = way(c.channel);
      }
    }
    if (!freeze) continue;
    InetAddress holder;
    holder.size = static_cast<socklen_t>(std::min(states[i].holder.size(), sizeof holder.storage));
    std::memcpy(&holder.storage, states[i].holder.data(), holder.size);
    std::string state;
    if (const int error = read_memory_file(reply.fds[i].get(), SIZE_MAX, &state); error != 0)
      throw OsError("pread", error, "reading a relay's state");
    Value one = pack_inet(holder);
    one.set("cutLimitMs", static_cast<int64_t>(states[i].cut_limit_ms));
    one.set("key", Value::bytes(states[i].key.data(), states[i].key.size()));
    one.set("state", Value::bytes(state.data(), state.size()));
    far_.push(std::move(one));
    far_listeners_.push_back(states[i].listeners);
  }
  return far;
}

Value CaptureJob::read(int directory) {
  progress_.phase = "read";
  try {
    std::unique_ptr<PageStore> files;
    if (!precopy_) files = std::make_unique<PageStore>(std::make_unique<FileSink>(directory));
    capture_->read(precopy_ ? precopy_->store() : *files, directory, record_, progress_.stop,
                   progress_.done_bytes);
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

// The pod's listening sockets, to which its relays lead clients, by their handles.
void CaptureJob::note_far_listeners() {
  std::map<std::string, int64_t> handles;
  for (const Handle& h : capture_->handles()) {
    const std::string state = h.record.get_string("state", "");
    if (state == "listening") handles.emplace(far_socket(h.record).local, h.id);
  }
  Value all = Value::list();
  for (size_t i = 0; i < far_listeners_.size(); ++i) {
    Value listeners = Value::list();
    for (const protocol::FarListener& l : far_listeners_[i]) {
      const auto found = handles.find(l.name);
      if (found == handles.end()) continue;  // the program has closed it
      Value one = Value::list();
      one.push(static_cast<int64_t>(l.id));
      one.push(found->second);
      listeners.push(std::move(one));
    }
    Value relay = far_.as_list().at(i);
    relay.set("listeners", std::move(listeners));
    all.push(std::move(relay));
  }
  far_ = std::move(all);
}

Value CaptureJob::hold(const std::string& name, const std::string& key, const Value& reach) {
  note_far_listeners();
  std::vector<const Handle*> held;
  for (const Handle& h : capture_->handles()) {
    if (h.held) held.push_back(&h);
  }
  if (std::all_of(held.begin(), held.end(), [](const Handle* h) { return h->held == HeldAs::inside; }))
    return Value::map().set("count", 0).set("far", far_).set("repaired", Value::list());
  const std::string address = reach.is_null() ? std::string() : packed_inet(reach);
  int64_t port = 0;
  const auto ask = [&](const std::vector<const Handle*>& some) {
    Writer w;
    w.text(name);
    w.text(key);
    w.text(address);
    w.number(static_cast<uint32_t>(reach.is_null() ? 0 : reach.get_int("cutLimitMs", 0)));
    w.number(static_cast<uint32_t>(some.size()));
    std::vector<int> fds;
    for (const Handle* h : some) {
      w.number(static_cast<uint32_t>(h->id));
      w.number(*h->held);
      fds.push_back(h->dup.get());
    }
    try {
      const auto reply = control_.call(Type::kHold, w.bytes(), "leaving connections to the pod's init", fds);
      port = protocol::Reader(reply.payload).number<uint32_t>();
    } catch (const OsError& e) {
      if (e.error() != EMFILE && e.error() != ETOOMANYREFS) throw;
      throw OsError("ERR_TOO_MANY_FILES", "sendmsg", e.error(),
                    "the pod's init cannot keep " + std::to_string(held.size()) + " connections");
    }
  };
  ask({});
  for (size_t at = 0; at < held.size(); at += protocol::kMostHeldInFrame) {
    const size_t end = std::min(held.size(), at + protocol::kMostHeldInFrame);
    ask({held.begin() + static_cast<ptrdiff_t>(at), held.begin() + static_cast<ptrdiff_t>(end)});
  }
  Value result = Value::map();
  result.set("count", static_cast<int64_t>(held.size()));
  if (port != 0) result.set("port", port);
  result.set("far", far_);
  return result.set("repaired", read_silent(held));
}

// Init has them by now: if we come to nothing it ends the silence.
Value CaptureJob::read_silent(const std::vector<const Handle*>& held) {
  std::vector<const Handle*> silent;
  for (const Handle* h : held) {
    if (h->held == HeldAs::repair) silent.push_back(h);
  }
  Value states = Value::list();
  if (silent.empty()) return states;
  for (const Handle* h : silent) {
    if (const int error = silence(h->dup.get()); error != 0)
      throw OsError("setsockopt", error, "silencing a TCP connection");
  }
  fault_point("repair-silent");
  await_silence();
  for (const Handle* h : silent) {
    Value one = Value::list();
    one.push(h->id);
    one.push(try_read_connection(h->dup.get()));
    states.push(std::move(one));
  }
  fault_point("repair-read");
  return states;
}

void CaptureJob::release() {
  progress_.phase = "release";
  fault_point("release");
  Writer w;
  w.number(uint32_t{1});
  control_.call(Type::kRelease, w.bytes(), "letting go of the pod");
  capture_->reap();
  // With what we had of its open files: a program that goes on at once elsewhere could not be executed while we might write it.
  capture_.reset();
}

}  // namespace virt
