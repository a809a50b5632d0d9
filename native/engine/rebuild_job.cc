#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <set>
#include <utility>

#include "base/error.h"
#include "base/fault.h"
#include "engine/jobs.h"
#include "resources/far_socket.h"
#include "resources/inet_address.h"
#include "sys/clocks.h"
#include "sys/file.h"
#include "sys/memory_file.h"
#include "sys/proc.h"

namespace virt {

using protocol::Type;
using protocol::Writer;

namespace {

int64_t number_in(const Value& text) {
  const auto n = parse_number(text.as_string());
  if (!n) throw BadValue("a clock that is no number");
  return static_cast<int64_t>(*n);
}

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
    const protocol::Status status = control_->hello();
    if (status.terminal_fd >= 0)
      o.terminal_master = take_from(o.init_host_pid, status.terminal_fd, kTakingTerminal);
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
  std::set<int64_t> wanted;
  for (const Value& id : held.at("ids").as_list()) wanted.insert(id.as_int());
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
      if (wanted.contains(id)) all[id] = std::move(reply.fds[i]);
    }
    at += here;
  }
  return all;
}

// Sockets whose other ends other hosts hold: made by init, with their options and what was closed of them.
namespace {

UniqueFd file_of(const std::string& bytes) {
  UniqueFd file;
  if (const int error = make_memory_file("virt-run-relay", bytes, &file); error != 0)
    throw OsError("write", error, "handing on what is on its way");
  return file;
}

}  // namespace

std::map<int64_t, UniqueFd> RebuildJob::make_far() {
  constexpr size_t kMostUnread = 4 << 20;  // in one message, of all sockets but the last
  std::map<int64_t, const Value*> records;
  for (const Value& h : plan_.at("handles").as_list()) records[h.at("id").as_int()] = &h;
  std::map<int64_t, UniqueFd> all;
  uint32_t through = 0;
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
      std::vector<UniqueFd> files;
      if (const Value* bytes = far.find("state"); bytes != nullptr && first) {
        files.push_back(file_of(bytes->as_bytes()));
        plan.has_state = 1;
      }
      first = false;
      std::vector<const Value*> made;
      std::string unread;
      for (; at < sockets.size() && made.size() < protocol::kMostHeldInFrame && unread.size() < kMostUnread;
           ++at) {
        const auto found = records.find(sockets[at].as_list().at(0).as_int());
        if (found == records.end()) throw BadValue("a connection that is not in the image");
        const FarSocket s = far_socket(*found->second);
        plan.sockets.push_back({static_cast<uint32_t>(sockets[at].as_list().at(1).as_int(0, UINT32_MAX)),
                                static_cast<uint32_t>(s.family), static_cast<uint32_t>(s.type),
                                s.v6_only ? 1U : 0U, s.local, s.peer});
        if (const Value* bytes = found->second->find("unread")) {
          plan.sockets.back().unread_bytes = static_cast<uint32_t>(bytes->as_bytes().size());
          unread += bytes->as_bytes();
        }
        made.push_back(found->second);
      }
      if (!unread.empty()) files.push_back(file_of(unread));
      std::vector<int> rides;
      for (const UniqueFd& file : files) rides.push_back(file.get());
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
