#include "checkpoint/rebuild.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ctime>

#include "base/error.h"
#include "base/fault.h"
#include "checkpoint/freeze.h"
#include "resources/file_locks.h"
#include "resources/kinds.h"
#include "resources/memfd.h"
#include "resources/tcp_repair.h"
#include "sys/file.h"

namespace virt {
namespace {

constexpr int kRseqUnregister = 1;

// The lowest number above every descriptor any process uses, and every number an epoll remembers.
int first_free_number(const Value& plan) {
  int64_t highest = 63;
  for (const Value& p : plan.at("processes").as_list()) {
    const Value* fds = p.find("fds");
    if (fds == nullptr) continue;
    for (const Value& entry : fds->as_list())
      highest = std::max(highest, entry.as_list().at(0).as_int(0, INT32_MAX / 2));
  }
  for (const Value& h : plan.at("handles").as_list()) {
    const Value* items = h.find("items");
    if (items == nullptr) continue;
    for (const Value& item : items->as_list())
      highest = std::max(highest, item.at("fd").as_int(0, INT32_MAX / 2));
  }
  return static_cast<int>(highest + 1);
}

// "/proc/7/fd": there is nothing to open before the process is there.
bool is_of_process(const std::string& path) {
  return path.starts_with("/proc/") && path.size() > 6 && path[6] >= '0' && path[6] <= '9';
}

}  // namespace

Rebuild::Rebuild(RebuildOptions options, const Value& plan) : options_(std::move(options)), plan_(plan) {}
Rebuild::~Rebuild() = default;

const std::vector<std::string>& Rebuild::notes() const { return processes_->notes; }

GrownProcess Rebuild::take_seed(const Region& region, pid_t pid) {
  options_.grow_seed(region.start, region.size, pid);
  pid_t host = 0;
  const auto children = read_file(
      proc_path(options_.init_host_pid, "task/" + std::to_string(options_.init_host_pid) + "/children"));
  for (const auto word : split_words(children)) {
    const auto candidate = static_cast<pid_t>(parse_number(word).value_or(0));
    const auto status = try_read_status(proc_path(candidate, ""));
    if (status && namespace_pids(*status).back() == pid) host = candidate;
  }
  if (host == 0) throw OsError("ERR_PROCESS_GONE", "clone3", ESRCH, "finding the seed that init made");
  auto thread = Thread::try_seize(host, PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE);
  if (!thread) throw OsError("ERR_PROCESS_GONE", "ptrace", ESRCH, "seizing the seed");
  thread->interrupt();
  if (!thread->await_stop()) throw OsError("ERR_PROCESS_GONE", "ptrace", ESRCH, "stopping the seed");
  GrownProcess seed;
  seed.host_pid = host;
  seed.pid = pid;
  seed.threads.push_back({*std::move(thread), pid, region.headers});
  seed.agent = std::make_unique<Agent>(host, region.site());
  // All its handles pass through it: as many as the user may have.
  rlimit64 files{};
  if (prlimit64(host, RLIMIT_NOFILE, nullptr, &files) == 0) {
    files.rlim_cur = files.rlim_max;
    prlimit64(host, RLIMIT_NOFILE, &files, nullptr);
  }
  // The C library of virt-init registered it; its memory is about to go.
  if (const auto rseq = seed.threads[0].thread.rseq()) {
    seed.agent->call(seed.borrow(region), SYS_rseq, rseq->address, rseq->size, kRseqUnregister,
                     rseq->signature);
  }
  return seed;
}

bool Rebuild::names_a_process(const Value& record) const {
  const Value* path = record.find("path");
  if (const Value* file = record.find("file"))
    path = plan_.at("files").as_list().at(static_cast<size_t>(file->as_int())).find("path");
  return path != nullptr && path->is_string() && is_of_process(path->as_string());
}

void Rebuild::make_handles() {
  for (const Value& r : plan_.at("handles").as_list()) {
    if (r.at("kind").as_string() != "dropped") records_[r.at("id").as_int()] = &r;
  }
  context_->make_handle = [this](int64_t id) { return make_handle(id); };
  std::vector<int64_t> ids;
  std::vector<int> held;
  for (const auto& [id, fd] : options_.held) {
    if (!records_.contains(id)) continue;
    ids.push_back(id);
    held.push_back(fd.get());
  }
  const std::vector<int> pushed = context_->push_all(held);
  for (size_t i = 0; i < ids.size(); ++i) {
    context_->handle_fds[ids[i]] = pushed[i];
    if (records_.at(ids[i])->find("repair") != nullptr)
      context_->silent.push_back({records_.at(ids[i]), context_->take(pushed[i]), true});
  }
  for (const auto& [id, record] : records_) {
    if (!names_a_process(*record)) (void)context_->handle_fd(id);
  }
  for (size_t i = 0; i < context_->when_all_stand.size(); ++i) context_->when_all_stand[i]();
  for (const auto& last : context_->at_last) last();
}

// Those that could not be opened before the tree stood: the seed opens them now, and each process that has
// one fetches it from there.
void Rebuild::make_late_handles() {
  for (const auto& [id, record] : records_) {
    if (!names_a_process(*record)) continue;
    (void)context_->handle_fd(id);
    context_->late_handles.insert(id);
  }
}

int Rebuild::make_handle(int64_t id) {
  const auto found = records_.find(id);
  if (found == records_.end()) throw BadValue("a handle id that is not in the image");
  const Value& record = *found->second;
  const Kind* kind = kind_named(record.at("kind").as_string());
  if (kind == nullptr) throw BadValue("a handle of unknown kind '" + record.at("kind").as_string() + "'");
  fault_point("rebuild-handle");
  try {
    const int fd = kind->rebuild(record, *context_);
    restore_handle_locks(context_->take(fd).get(), record);
    return fd;
  } catch (OsError& e) {
    e.of_kind(kind->name);
    for (const Value& p : plan_.at("processes").as_list()) {
      const Value* fds = p.find("fds");
      if (fds == nullptr) continue;
      for (const Value& entry : fds->as_list()) {
        if (entry.as_list().at(1).as_int() != id) continue;
        e.in_process(static_cast<int>(p.at("pid").as_int()))
            .on_fd(static_cast<int>(entry.as_list()[0].as_int()));
      }
    }
    throw;
  }
}

void Rebuild::build(const std::atomic<bool>& stop, std::atomic<uint64_t>& done_bytes,
                    std::atomic<uint64_t>& total_bytes, const std::function<void(const char*)>& phase) {
  const auto go_on = [&stop] {
    if (stop.load()) throw OsError("ERR_ABORTED", "rebuild", ECANCELED, "the rebuild was stopped");
  };
  phase("tree");
  std::vector<uint64_t> parts;
  for (const Value& pages : plan_.at("pagesInPart").as_list())
    parts.push_back(static_cast<uint64_t>(pages.as_int(0, kPartPages)));
  pages_ = std::make_unique<PageFile>(options_.image_directory, std::move(parts));

  const Region region = choose_region(plan_.at("processes"));
  tree_ = std::make_unique<Tree>(
      region, take_seed(region, static_cast<pid_t>(plan_.at("seedPid").as_int(2, 1 << 22))));
  fault_point("rebuild-seed");
  UniqueFd pidfd(static_cast<int>(syscall(SYS_pidfd_open, tree_->seed().host_pid, 0)));
  if (!pidfd) throw OsError("pidfd_open", errno, "opening the seed");
  context_ = std::make_unique<RebuildContext>(*tree_->seed().agent, tree_->seed().borrow(region),
                                              std::move(pidfd), first_free_number(plan_));
  context_->files = plan_.at("files").as_list();
  context_->objects = plan_.at("objects").as_list();
  context_->addresses_come_later = plan_.get_bool("addressesComeLater", false);
  context_->terminal_master = std::move(options_.terminal_master);
  context_->open_carried = [this](const Value& file) {
    for (const Value& c : plan_.at("carried").as_list()) {
      if (c.at("file").as_int() != file.at("id").as_int()) continue;
      const std::string& name = c.at("name").as_string();
      UniqueFd fd(openat(options_.image_directory, name.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
      if (!fd)
        throw OsError("ERR_IMAGE_DAMAGED", "openat", errno, "opening a carried file of the image")
            .at_path(name);
      return fd;
    }
    throw BadValue("an unlinked file whose content is not in the image");
  };
  memory_ = std::make_unique<MemoryRebuilder>(plan_, *tree_, *context_, *pages_);
  processes_ = std::make_unique<ProcessRebuilder>(plan_, *tree_, *context_);
  MemoryRebuilder::strip(*tree_);
  phase("handles");
  memory_->make_shared();
  make_handles();
  go_on();

  phase("tree");
  // A controlling terminal is inherited and cannot be had otherwise: a session's leader claims it before it
  // forks.
  for (const Value& step : plan_.at("grow").as_list()) {
    Value one = Value::list();
    one.push(step);
    tree_->grow(one);
    if (step.at("op").as_string() == "setsid")
      processes_->claim_terminal(static_cast<pid_t>(step.at("pid").as_int(2, 1 << 22)));
  }
  fault_point("rebuild-grown");
  for (const Value& record : plan_.at("processes").as_list()) {
    if (record.get_bool("zombie", false)) continue;
    GrownProcess& p = tree_->at(static_cast<pid_t>(record.at("pid").as_int(2, 1 << 22)));
    p.record = &record;
    live_.push_back(&p);
  }
  phase("memory");
  for (GrownProcess* p : live_) memory_->map(*p);
  total_bytes = memory_->total_bytes();
  memory_->fill(options_.threads, stop, done_bytes);
  go_on();

  phase("state");
  for (GrownProcess* p : live_) memory_->finish(*p);
  size_memfds(plan_.at("memory"), *context_);
  memory_->seal();
  for (GrownProcess* p : live_) processes_->set_addresses(*p);
  make_late_handles();
  auto& notes = processes_->notes;
  notes.insert(notes.end(), context_->notes.begin(), context_->notes.end());
  for (GrownProcess* p : live_) processes_->place_handles(*p);
  processes_->claim_terminals();
  for (GrownProcess* p : live_) processes_->make_threads(*p);
  for (GrownProcess* p : live_) processes_->set_attributes(*p);
  processes_->set_owners();
  fault_point("rebuild-state");
  tree_->end_seed();
  for (GrownProcess* p : live_) processes_->set_signals(*p);
  processes_->tell_owners(options_.held);
  for (GrownProcess* p : live_) processes_->set_credentials(*p);
  for (GrownProcess* p : live_) processes_->park(*p);
  go_on();
  fault_point("rebuild-parked");
}

// A child that was stopped stops once more, and its parent is told a second time: the signal is taken away
// unless one waited before, what wait(2) tells if the parent had asked.
void Rebuild::forget_stop(GrownProcess& parent, const GrownProcess& child) {
  for (int i = 0; i < 200; ++i) {
    const auto stat = try_read_stat(proc_path(child.host_pid, ""));
    if (!stat || stat->state == 'T') break;
    const timespec nap{0, 500'000};
    nanosleep(&nap, nullptr);
  }
  const uint64_t mask = uint64_t{1} << (SIGCHLD - 1);
  const bool waited = (parent.avoid_marks & mask) != 0;
  parent.avoid_marks |= mask;
  Batch b(parent.agent->site());
  if (child.record->get_bool("stopTold", false))
    b.call(SYS_wait4, child.pid, 0, WUNTRACED | WNOHANG | __WALL, 0);
  const timespec now{};
  if (!waited) b.call(SYS_rt_sigtimedwait, b.in(&mask, sizeof mask), 0, b.in(&now, sizeof now), 8);
  parent.agent->run(parent.borrow(tree_->region()), b);
  if (!waited) parent.avoid_marks &= ~mask;
}

std::vector<RebuildContext::Silent>& Rebuild::fill_silent() {
  for (const auto& [record, fd, whole] : context_->silent) {
    if (whole) continue;
    fill_connection(record->at("repair"), record->at("options"), fd.get());
  }
  return context_->silent;
}

void Rebuild::let_go() {
  std::vector<GrownProcess*> running;
  // Stopped ones first, children before parents (who are made before them): the parent must not notice.
  for (auto at = live_.rbegin(); at != live_.rend(); ++at) {
    GrownProcess* p = *at;
    if (p->record->get_int("stopSignal", 0) == 0) {
      running.push_back(p);
      continue;
    }
    processes_->let_go(*p);
    const auto parent = tree_->processes().find(static_cast<pid_t>(p->record->at("ppid").as_int()));
    if (parent != tree_->processes().end() && parent->second.threads[0].thread.alive())
      forget_stop(parent->second, *p);
  }
  for (GrownProcess* p : running) processes_->let_go(*p);
}

}  // namespace virt
