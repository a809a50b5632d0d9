#include "engine/jobs.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <set>

#include "base/error.h"
#include "base/fault.h"
#include "resources/far_socket.h"
#include "resources/inet_address.h"
#include "resources/socket_options.h"
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

std::string read_all(int file) {
  struct stat st {};
  check(fstat(file, &st), "fstat", "reading a relay's state");
  std::string bytes(static_cast<size_t>(st.st_size), '\0');
  if (pread(file, bytes.data(), bytes.size(), 0) != st.st_size)
    throw OsError("pread", errno, "reading a relay's state");
  return bytes;
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
  if (const Value* tcp = options.find("tcp")) {
    o.tcp.otherwise = tcp->at("otherwise").as_string();
    for (const Value& r : tcp->at("rules").as_list())
      o.tcp.rules.push_back(
          {r.at("policy").as_string(), r.get_string("address", ""), static_cast<int>(r.get_int("port", 0))});
  }
  o.hold = options.get_bool("hold", false);
  o.leave = o.hold && options.get_bool("leave", false);
  if (o.hold) o.far = [this, leave = o.leave] { return look_far(leave); };
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

FarWays CaptureJob::look_far(bool freeze) {
  Writer w;
  w.number(uint32_t{freeze});
  ControlClient::Reply reply;
  try {
    reply = control_.call(Type::kFar, w.bytes(), "asking for the pod's relays");
  } catch (const OsError& e) {
    if (e.error() != EPERM && e.error() != ENOBUFS) throw;
    throw OsError("ERR_CONNECTION", "relay", e.error(),
                  "what a program has not read of a connection from another host cannot be taken along");
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
    const std::string state = read_all(reply.fds[i].get());
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
    return Value::map().set("count", 0).set("far", far_);
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
  return result;
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
    if (plan_.find("held") != nullptr) o.held = take_held();
    if (plan_.find("far") != nullptr) o.held.merge(make_far());
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

// They stay the holder's as well until the pod lives: if nothing comes of it, nothing has happened.
std::map<int64_t, UniqueFd> RebuildJob::take_held() {
  const Value& held = plan_.at("held");
  std::map<int64_t, int64_t> wanted;  // the holder's numbers, and the image's
  for (const Value& id : held.at("ids").as_list())
    wanted[id.as_list().at(0).as_int()] = id.as_list().at(1).as_int();
  std::map<int64_t, const Value*> records;
  for (const Value& h : plan_.at("handles").as_list()) records[h.at("id").as_int()] = &h;
  holder_ = std::make_unique<ControlClient>(ControlClient::connect(held.at("socket").as_string()));
  std::map<int64_t, UniqueFd> all;
  for (uint32_t at = 0, count = 1; at < count;) {
    Writer w;
    w.text(held.at("key").as_bytes());
    w.number(at);
    ControlClient::Reply reply;
    try {
      reply = holder_->call(Type::kTake, w.bytes(), "taking connections back from their holder");
    } catch (const OsError& e) {
      if (e.error() == ESTALE)
        throw OsError("ERR_CONNECTION", "take", ESTALE, "the connections are passed on to another host");
      if (e.error() != EBUSY) throw;
      throw OsError("ERR_POD_BUSY", "take", EBUSY, "another reattach is taking these connections");
    }
    protocol::Reader r(reply.payload);
    count = r.number<uint32_t>();
    const auto here = r.number<uint32_t>();
    if (!r.ok() || here == 0 || here > count - at)
      throw OsError("recvmsg", EPROTO, "taking connections back from their holder");
    if (here != reply.fds.size())
      throw OsError("ERR_TOO_MANY_FILES", "recvmsg", EMFILE, "taking connections back from their holder");
    for (uint32_t i = 0; i < here; ++i) {
      const auto id = int64_t{r.number<uint32_t>()};
      const auto handle = wanted.find(id);
      if (handle == wanted.end()) continue;
      // Who led on clients from there has made it non-blocking.
      if (const auto record = records.find(handle->second);
          record != records.end() && record->second->get_string("state", "") == "listening")
        set_status_flags(reply.fds[i].get(), static_cast<int>(record->second->at("flags").as_int()));
      all[handle->second] = std::move(reply.fds[i]);
    }
    at += here;
  }
  return all;
}

// Sockets whose other ends other hosts hold: made by init, with their options and what was closed of them.
std::map<int64_t, UniqueFd> RebuildJob::make_far() {
  constexpr size_t kMostUnread = 4 << 20;  // in one message
  std::map<int64_t, const Value*> records;
  for (const Value& h : plan_.at("handles").as_list()) records[h.at("id").as_int()] = &h;
  std::map<int64_t, UniqueFd> all;
  uint32_t through = 0;
  const auto listeners = [&records](const Value& far) {
    std::vector<protocol::FarListener> some;
    const Value* given = far.find("listeners");
    if (given == nullptr) return some;
    for (const Value& l : given->as_list()) {
      const auto found = records.find(l.as_list().at(1).as_int());
      if (found == records.end()) throw BadValue("a listening socket that is not in the image");
      some.push_back({static_cast<uint32_t>(l.as_list().at(0).as_int(0, UINT32_MAX)),
                      far_socket(*found->second).local, reached_at(*found->second)});
    }
    return some;
  };
  for (const Value& far : plan_.at("far").as_list()) {
    const auto& sockets = far.at("sockets").as_list();
    size_t at = 0;
    bool first = true;
    do {  // also with none: the holder is to hear that the pod has gone on
      protocol::FarPlan plan;
      plan.through = through;
      plan.key = far.at("key").as_bytes();
      plan.holder = packed_inet(far);
      plan.cut_limit_ms = static_cast<uint32_t>(far.get_int("cutLimitMs", 0));
      std::vector<const Value*> made;
      size_t unread = 0;
      for (; at < sockets.size() && made.size() < protocol::kMostHeldInFrame && unread < kMostUnread; ++at) {
        const auto found = records.find(sockets[at].as_list().at(0).as_int());
        if (found == records.end()) throw BadValue("a connection that is not in the image");
        const FarSocket s = far_socket(*found->second);
        plan.sockets.push_back({static_cast<uint32_t>(sockets[at].as_list().at(1).as_int(0, UINT32_MAX)),
                                static_cast<uint32_t>(s.family),
                                static_cast<uint32_t>(s.type),
                                s.v6_only ? 1U : 0U,
                                s.local,
                                s.peer,
                                {}});
        if (const Value* bytes = found->second->find("unread"))
          plan.sockets.back().unread = bytes->as_bytes();
        unread += plan.sockets.back().unread.size();
        made.push_back(found->second);
      }
      if (first) plan.listeners = listeners(far);
      UniqueFd state;
      std::vector<int> rides;
      if (const Value* bytes = far.find("state"); bytes != nullptr && first) {
        state.reset(memfd_create("virt-run-relay", MFD_CLOEXEC));
        const std::string& b = bytes->as_bytes();
        if (!state || write(state.get(), b.data(), b.size()) != static_cast<ssize_t>(b.size()))
          throw OsError("write", errno, "handing on a relay's state");
        rides.push_back(state.get());
      }
      first = false;
      ControlClient::Reply reply;
      try {
        reply = control_->call(Type::kRelay, encode(plan), "making sockets of another host", rides);
      } catch (const OsError& e) {
        if (e.error() != EMFILE) throw;
        throw OsError("ERR_TOO_MANY_FILES", "socket", EMFILE, "making sockets of another host");
      }
      if (reply.fds.size() != made.size())
        throw OsError("ERR_TOO_MANY_FILES", "recvmsg", EMFILE, "making sockets of another host");
      for (size_t i = 0; i < made.size(); ++i) {
        furnish_far_socket(*made[i], reply.fds[i].get());
        all[made[i]->at("id").as_int()] = std::move(reply.fds[i]);
      }
    } while (at < sockets.size());
    ++through;
  }
  return all;
}

namespace {

// What FarSockets::begin() fails with.
void far_failure(int error) {
  if (error == ESTALE) {
    throw OsError("ERR_CONNECTION", "connect", error,
                  "the connections are with another host, where this image was reattached before");
  }
  if (error == EACCES)
    throw OsError("ERR_CONNECTION", "connect", error,
                  "who answers there is not the holder of this image's connections");
  if (error == ETIMEDOUT)
    throw OsError("ERR_CONNECTION", "connect", error, "the holder of the connections does not answer");
}

}  // namespace

UniqueFd RebuildJob::commit() {
  progress_.phase = "commit";
  fault_point("rebuild-commit");
  Writer w;
  w.number(static_cast<uint32_t>(plan_.at("firstPid").as_int(2, 1 << 22)));
  w.number(static_cast<uint32_t>(plan_.get_bool("firstEnded", false)));
  w.number(static_cast<int32_t>(plan_.get_int("firstStatus", 0)));
  try {
    control_->call(Type::kCommit, w.bytes(), "committing the pod");
  } catch (const OsError& e) {
    if (plan_.find("far") != nullptr) far_failure(e.error());
    throw;
  }
  // The pod lives: whatever fails from here on must not be taken for a failed reattach. Threads that we
  // cannot put in order ourselves are let go of where they are, and find their own way home.
  try {
    fault_point("rebuild-committed");
    rebuild_->let_go();
  } catch (const OsError&) {
    rebuild_.reset();
  }
  if (holder_) {
    Writer drop;
    drop.text(plan_.at("held").at("key").as_bytes());
    try {
      holder_->call(Type::kDrop, drop.bytes(), "ending the holder");
    } catch (const OsError&) {
      // It has ended: the sockets are the pod's.
    }
  }
  return std::move(control_dup_);
}

}  // namespace virt
