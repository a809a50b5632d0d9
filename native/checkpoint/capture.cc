#include "checkpoint/capture.h"

#include <fcntl.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <ctime>
#include <map>

#include "arch/vdso.h"
#include "arch/xstate.h"
#include "base/error.h"
#include "base/fault.h"
#include "checkpoint/foothold.h"
#include "checkpoint/process_inside.h"
#include "checkpoint/process_state.h"
#include "checkpoint/read_pages.h"
#include "resources/far_socket.h"
#include "sys/clocks.h"
#include "sys/file.h"

namespace virt {
namespace {

Value pack_runs(const JobRuns& runs) {
  Value list = Value::list();
  for (const PageRun& r : runs) {
    Value v = Value::list();
    v.push(static_cast<int64_t>(r.start));
    v.push(static_cast<int64_t>(r.count));
    v.push(static_cast<int64_t>(r.index));
    if (r.huge) v.push(1);
    list.push(std::move(v));
  }
  return list;
}

}  // namespace

Capture::Capture(CaptureOptions options) : options_(std::move(options)) {}

Capture::~Capture() {
  veil();
  for (const PageJob& job : memory_.jobs) {
    if (job.fd >= 0) close(job.fd);
  }
}

void Capture::freeze() {
  pod_ = virt::freeze(options_.init_host_pid, options_.freeze_timeout_ms);
  context_ = std::make_unique<CaptureContext>(options_.init_host_pid, options_.streams,
                                              options_.terminal_master, options_.terminal_index);
  context_->drop = options_.drop;
  context_->tcp_policy = options_.tcp;
  context_->holds = options_.hold;
  if (options_.far) context_->far = options_.far();
  context_->remapped = options_.remapped;
  // Host pid → pod pid, for processes, threads, groups and sessions (whose leaders may be gone).
  auto pids = std::make_shared<std::map<pid_t, int>>();
  (*pids)[options_.init_host_pid] = 1;
  for (const FrozenProcess& p : pod_.processes) {
    (*pids)[p.host_pid] = p.pid;
    for (const FrozenThread& t : p.threads) (*pids)[t.host_tid] = t.tid;
    const auto status = try_read_status(p.dir());
    if (!status) continue;
    const auto groups = status->numbers("NSpgid"), sessions = status->numbers("NSsid");
    if (groups.size() > 1) (*pids)[static_cast<pid_t>(groups[0])] = static_cast<int>(groups.back());
    if (sessions.size() > 1) (*pids)[static_cast<pid_t>(sessions[0])] = static_cast<int>(sessions.back());
  }
  const auto own = try_read_link("/proc/self/ns/net");
  const bool our_network = own == try_read_link(proc_path(options_.init_host_pid, "ns/net"));
  context_->own_network = !our_network;
  context_->make_socket = [this, our_network](int family, int type, int protocol) {
    UniqueFd fd = our_network ? UniqueFd(socket(family, type | SOCK_CLOEXEC, protocol))
                              : options_.socket_in_pod(family, type, protocol);
    if (!fd) throw OsError("socket", errno, "making a socket to ask with, or to compare with");
    return fd;
  };
  context_->to_pod_pid = [pids](pid_t host) {
    const auto found = pids->find(host);
    return found == pids->end() ? 0 : found->second;
  };
}

std::optional<std::pair<int, int>> Capture::user_of_socket(uint64_t inode) const {
  const std::string wanted = "socket:[" + std::to_string(inode) + "]";
  for (const FrozenProcess& p : pod_.processes) {
    const std::string fds = p.dir() + "/fd";
    for (const int fd : try_list_numbers(fds).value_or(std::vector<int>())) {
      if (try_read_link(fds + "/" + std::to_string(fd)) == wanted) return std::pair(p.pid, fd);
    }
  }
  return std::nullopt;
}

Value Capture::clocks() const {
  const auto pod_clock = [this](Clock clock) {
    return std::to_string(host_clock_ns(clock) + clock_offset_ns(options_.init_host_pid, clock));
  };
  Value v = Value::map();
  v.set("monotonicNs", pod_clock(Clock::monotonic)).set("boottimeNs", pod_clock(Clock::boottime));
  v.set("realtimeNs", std::to_string(realtime_ns()));
  return v;
}

// What programs have sent is with their relays, whose last states have it; what they have not read goes into the image.
void Capture::take_far_queues() {
  constexpr int64_t kPatienceNs = 3'000'000'000;
  std::vector<Handle*> far;
  for (Handle& h : handles_) {
    if (h.record.find("far") != nullptr) far.push_back(&h);
  }
  if (far.empty()) return;
  const int64_t end = monotonic_ns() + kPatienceNs;
  const auto left = [](const Handle* h) { return has_left(h->dup.get()); };
  while (!std::all_of(far.begin(), far.end(), left)) {
    if (monotonic_ns() > end)
      throw OsError("ERR_CONNECTION", "ioctl", EAGAIN, "what a program has sent does not reach its relay");
    (void)options_.far();  // makes room
    const timespec moment{0, 1'000'000};
    nanosleep(&moment, nullptr);
  }
  (void)options_.far();
  for (Handle* h : far) {
    if (h->record.get_string("type", "") == "udp") continue;
    const std::string unread = unread_of(h->dup.get());
    if (!unread.empty()) h->record.set("unread", Value::bytes(unread.data(), unread.size()));
  }
}

Value Capture::survey() {
  Value record = Value::map();
  record.set("clocks", clocks());
  fault_point("survey");
  unveil();
  collect_handles();
  check_shared_tables();

  std::vector<Value> states;
  std::vector<std::vector<Vma>> vmas;
  for (FrozenProcess& p : pod_.processes) {
    states.push_back(outside_state(pod_, p, *context_));
    vmas.emplace_back();
    if (p.readable()) vmas.back() = parse_smaps(read_file(p.dir() + "/smaps", size_t{256} << 20));
  }
  capture_handles();
  if (options_.leave) take_far_queues();
  for (size_t i = 0; i < pod_.processes.size(); ++i) {
    if (pod_.processes[i].readable())
      survey_memory(pod_.processes[i], i, vmas[i], *context_, options_.precopy, memory_);
  }
  survey_objects(*context_, memory_);
  survey_sysv();
  // What would be refused anyway is not asked further: nothing of ours has run in the pod yet, but what lifted the veil.
  if (context_->blockers.empty()) {
    for (size_t i = 0; i < pod_.processes.size(); ++i) {
      FrozenProcess& p = pod_.processes[i];
      if (!p.readable()) continue;
      if (const Vma* vdso = find_vdso(vmas[i])) step_out_of_vdso(p, *vdso);
      Foothold foothold(p, vmas[i]);
      inside_state(p, foothold, states[i]);
      if (std::find(unveiled_.begin(), unveiled_.end(), &p) != unveiled_.end()) states[i].set("dumpable", 0);
      ask_about_stops(p, foothold, pod_, states);
      ask_close_on_exec(i, foothold);
      survey_objects_through(p, i, foothold, *context_, memory_);
      if (options_.arm) options_.precopy->arm(p, foothold);
      foothold.remove();
    }
  }
  memory_.mappings.resize(pod_.processes.size());
  for (size_t i = 0; i < states.size(); ++i) {
    if (!pod_.processes[i].readable()) continue;
    states[i].set("mappings", std::move(memory_.mappings[i]));
    states[i].set("fds", Value(Value::List(fds_[i].begin(), fds_[i].end())));
    if (!locks_[i].empty()) states[i].set("locks", Value(Value::List(locks_[i].begin(), locks_[i].end())));
  }
  record.set("processes", Value(Value::List(states.begin(), states.end())));
  Value handles = Value::list();
  for (const Handle& h : handles_) handles.push(h.record);
  record.set("handles", std::move(handles));
  record.set("objects", context_->objects());
  record.set("files", context_->files());
  Value memory = Value::list();
  for (MemoryObject& m : context_->memories()) {
    Value v = m.record;
    v.set("id", m.id).set("kind", m.kind).set("sizeBytes", static_cast<int64_t>(m.size));
    memory.push(std::move(v));
  }
  record.set("memory", std::move(memory));
  record.set("vdso", Value::bytes(memory_.vdso.data(), memory_.vdso.size()));
  record.set("xstate", XstateLayout::of_this_cpu().to_value());
  Value blockers = Value::list();
  for (const Blocker& b : context_->blockers) blockers.push(b.to_value());
  record.set("blockers", std::move(blockers));
  Value accepted = Value::list();
  for (const std::string& a : context_->accepted) accepted.push(a);
  record.set("accepted", std::move(accepted));
  return record;
}

void Capture::carry_files(int directory, Value& record) {
  Value carried = Value::list();
  for (const CaptureContext::Carried& f : context_->carried()) {
    const std::string name = "carried-" + std::to_string(f.id) + ".bin";
    UniqueFd to(openat(directory, name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600));
    if (!to) throw OsError("openat", errno, "making a file of the image").at_path(name);
    check(ftruncate(to.get(), static_cast<off_t>(f.size)), "ftruncate", "writing a carried file");
    off_t at = 0;
    while (at < static_cast<off_t>(f.size)) {
      const off_t data = lseek(f.fd.get(), at, SEEK_DATA);
      if (data < 0 && errno == ENXIO) break;
      check(data, "lseek", "reading an unlinked file");
      const off_t hole = check(lseek(f.fd.get(), data, SEEK_HOLE), "lseek", "reading an unlinked file");
      check(lseek(to.get(), data, SEEK_SET), "lseek", "writing a carried file");
      at = data;
      while (at < hole) {
        const ssize_t n = sendfile(to.get(), f.fd.get(), &at, static_cast<size_t>(hole - at));
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) throw OsError("sendfile", n < 0 ? errno : EIO, "writing a carried file").at_path(name);
      }
    }
    Value v = Value::map();
    v.set("file", f.id).set("name", name).set("sizeBytes", static_cast<int64_t>(f.size));
    carried.push(std::move(v));
  }
  record.set("carried", std::move(carried));
}

void Capture::read(PageStore& store, int directory, Value& record, const std::atomic<bool>& stop,
                   std::atomic<uint64_t>& done_bytes) {
  const std::vector<JobRuns> runs = read_pages(memory_.jobs, store, options_.threads, stop, done_bytes);
  // Runs of one process in one list; of a shared object likewise.
  std::vector<JobRuns> of_process(pod_.processes.size()), of_memory(context_->memories().size());
  for (size_t j = 0; j < runs.size(); ++j) {
    auto& all = (memory_.jobs[j].of_memory ? of_memory : of_process)[memory_.jobs[j].owner];
    all.insert(all.end(), runs[j].begin(), runs[j].end());
  }
  for (const auto& [owner, known] : memory_.known) {
    JobRuns& all = of_process[owner];
    all.insert(all.end(), known.begin(), known.end());
    std::sort(all.begin(), all.end(), [](const PageRun& a, const PageRun& b) { return a.start < b.start; });
  }
  Value processes = record.at("processes"), memory = record.at("memory");
  for (size_t i = 0; i < of_process.size(); ++i) {
    if (!pod_.processes[i].zombie) processes.as_list()[i].set("pages", pack_runs(of_process[i]));
  }
  // Several processes may have been read for one object.
  for (JobRuns& all : of_memory) {
    std::sort(all.begin(), all.end(), [](const PageRun& a, const PageRun& b) { return a.start < b.start; });
  }
  for (size_t i = 0; i < of_memory.size(); ++i) memory.as_list()[i].set("pages", pack_runs(of_memory[i]));
  record.set("processes", std::move(processes)).set("memory", std::move(memory));
  carry_files(directory, record);
  std::vector<uint64_t> parts = store.finish(directory);
  Value counts = Value::list();
  for (const uint64_t pages : parts) counts.push(static_cast<int64_t>(pages));
  record.set("pagesInPart", std::move(counts));
  fault_point("capture-read-done");
  for (const auto& look : context_->read_last) look();
  record.set("objects", context_->objects());
}

void Capture::thaw() {
  fault_point("thaw");
  veil();
  pod_ = FrozenPod{};
}

void Capture::reap() {
  unveiled_.clear();
  // The leader last: the kernel reports its end only when the other threads are gone.
  for (FrozenProcess& p : pod_.processes) {
    for (auto t = p.threads.rbegin(); t != p.threads.rend(); ++t) {
      while (t->thread.alive()) (void)t->thread.await_stop();
    }
  }
  pod_ = FrozenPod{};
}

}  // namespace virt
