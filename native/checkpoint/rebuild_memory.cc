#include "checkpoint/rebuild_memory.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include <algorithm>
#include <cerrno>

#include "base/error.h"
#include "checkpoint/batch_runner.h"
#include "checkpoint/memory_records.h"
#include "memory/vma.h"
#include "sys/file.h"
#include "sys/proc.h"

namespace virt {
namespace {

constexpr int kInstallGuard = 102;  // MADV_GUARD_INSTALL, Linux 6.13; Debian 12's headers are older
const std::string kSharedName = "virt-run-shared";  // memory_map.cc knows it as shared anonymous memory

// Guard regions of a mapping, within it.
std::vector<std::pair<uint64_t, uint64_t>> guards_of(const Value& m) {
  std::vector<std::pair<uint64_t, uint64_t>> guards;
  const Value* list = m.find("guards");
  if (list == nullptr) return guards;
  for (const Value& v : list->as_list()) {
    const auto& parts = v.as_list();
    if (parts.size() != 2) throw BadValue("a guard region that is no pair");
    const auto from = static_cast<uint64_t>(parts[0].as_int(0, INT64_MAX));
    const auto to = static_cast<uint64_t>(parts[1].as_int(0, INT64_MAX));
    if (from < start_of(m) || to > end_of(m) || from >= to)
      throw BadValue("a guard region outside its mapping");
    guards.emplace_back(from, to);
  }
  return guards;
}

bool advised(const Value& m, int advice) {
  const Value* list = m.find("advice");
  if (list == nullptr) return false;
  const auto& all = list->as_list();
  return std::any_of(all.begin(), all.end(), [advice](const Value& a) { return a.as_int(0, 100) == advice; });
}

}  // namespace

MemoryRebuilder::MemoryRebuilder(const Value& plan, Tree& tree, RebuildContext& context,
                                 const PageFile& pages)
    : plan_(plan), tree_(tree), context_(context), pages_(pages) {}

void MemoryRebuilder::strip(Tree& tree) {
  GrownProcess& seed = tree.seed();
  BatchRunner run(tree, seed);
  for (const Vma& v : mappings_of(seed.host_pid)) {
    if (is_special(v) || v.path == "[vsyscall]") continue;
    if (v.start < tree.region().end() && v.end > tree.region().start) continue;
    Batch& b = run.batch();
    run.expect(b.call(SYS_munmap, v.start, v.size()), "munmap", "emptying the seed",
               hex_range(v.start, v.end));
  }
  Batch& b = run.batch();
  run.expect(b.call(SYS_munmap, tree.region().parking, kParkingBytes), "munmap", "emptying the seed", "");
  run.flush();
}

void MemoryRebuilder::make_memory(const Value& object) {
  const bool named = object.at("kind").as_string() == "memfd";
  Batch b = context_.batch();
  const size_t made = b.call(SYS_memfd_create, b.in(named ? object.at("name").as_string() : kSharedName),
                             MFD_CLOEXEC | (named ? MFD_ALLOW_SEALING : 0));
  const int fd = context_.run_for_fd(b, made, "memfd_create", "making shared memory");
  UniqueFd mine = context_.take(fd);
  check(ftruncate(mine.get(), object.at("sizeBytes").as_int(0, INT64_MAX)), "ftruncate",
        "sizing shared memory");
  if (named) fchmod(mine.get(), static_cast<mode_t>(object.get_int("mode", 0777)));
  context_.memory_fds[object.at("id").as_int()] = fd;
  for (const PageRun& run : unpack_runs(object.find("pages"))) {
    fills_.push_back({0, run, Fill::How::file, mine.get()});
    total_bytes_ += run.count * kPageBytes;
  }
  object_fds_.push_back(std::move(mine));
}

void MemoryRebuilder::make_shared() {
  targets_.emplace_back();  // 0: none
  for (const Value& object : plan_.at("memory").as_list()) {
    object.at("kind").as_string() == "sysv" ? make_sysv(object) : make_memory(object);
  }
  for (const Value& p : plan_.at("processes").as_list()) {
    if (p.get_bool("zombie", false)) continue;
    context_.mapped_file(p.at("exe").as_int(), O_RDONLY);
    for (const Value& m : p.at("mappings").as_list()) {
      if (m.at("kind").as_string() != "file") continue;
      context_.mapped_file(m.at("file").as_int(), m.get_bool("writable", false) ? O_RDWR : O_RDONLY);
    }
  }
}

void MemoryRebuilder::take_uffd(Target& target) {
  constexpr uint64_t kMoves = uint64_t{1} << 16;  // UFFD_FEATURE_MOVE, Linux 6.8
  GrownProcess& p = *target.process;
  const int64_t made =
      p.agent->call(p.borrow(tree_.region()), SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);
  if (made < 0) return;  // not configured, or a kernel before 5.11: written instead
  target.own_uffd = static_cast<int>(made);
  UniqueFd pidfd(static_cast<int>(syscall(SYS_pidfd_open, p.host_pid, 0)));
  UniqueFd fd(static_cast<int>(syscall(SYS_pidfd_getfd, pidfd.get(), target.own_uffd, 0)));
  if (!fd) throw OsError("pidfd_getfd", errno, "taking a userfaultfd").in_process(p.pid);
  uffdio_api api{};
  api.api = UFFD_API;
  if (ioctl(fd.get(), UFFDIO_API, &api) != 0) return close_uffd(target);
  target.uffd = std::move(fd);
  target.moves = (api.features & kMoves) != 0;
}

void MemoryRebuilder::close_uffd(Target& target) {
  if (target.own_uffd < 0) return;
  target.process->agent->call(target.process->borrow(tree_.region()), SYS_close, target.own_uffd);
  target.own_uffd = -1;
}

void MemoryRebuilder::map(GrownProcess& p) {
  place_vdso(p);
  auto runs = unpack_runs(p.record->find("pages"));
  const size_t number = targets_.size();
  Target& target = targets_.emplace_back();
  target.process = &p;
  take_uffd(target);
  const bool moves = target.moves && !p.record->get_bool("noHugePages", false);
  std::vector<PageRun> huge;
  BatchRunner run(tree_, p);
  size_t next_run = 0;
  std::vector<std::pair<uint64_t, uint64_t>> watched;
  for (const Value& m : p.record->at("mappings").as_list()) {
    const std::string& kind = m.at("kind").as_string();
    if (kind == "vdso" || kind == "vvar") continue;
    const uint64_t start = start_of(m), end = end_of(m);
    if (end <= start || start % kPageBytes != 0 || end % kPageBytes != 0)
      throw BadValue("a mapping with bad bounds");
    const bool shared = m.get_bool("shared", false);
    int flags = MAP_FIXED_NOREPLACE | (shared ? MAP_SHARED : MAP_PRIVATE);
    if (m.get_bool("growsDown", false)) flags |= MAP_GROWSDOWN;
    if (m.get_bool("noReserve", false)) flags |= MAP_NORESERVE;
    int64_t fd = -1;
    int64_t offset = m.get_int("offset", 0);
    bool sysv = false;
    if (kind == "file") {
      fd = context_.mapped_file(m.at("file").as_int(), m.get_bool("writable", false) ? O_RDWR : O_RDONLY);
    } else if (kind == "memory") {
      const auto id = m.at("memory").as_int();
      const auto found = context_.memory_fds.find(id);
      sysv = found == context_.memory_fds.end();
      if (!sysv) fd = found->second;
    } else if (kind == "anonymous") {
      flags |= MAP_ANONYMOUS;
      offset = 0;
    } else {
      throw BadValue("a mapping of kind '" + kind + "'");
    }
    // Runs of this mapping: they ascend, as the mappings do, and one may go on in the next mapping.
    std::vector<PageRun> own;
    while (next_run < runs.size() && runs[next_run].start < end) {
      PageRun& r = runs[next_run];
      if (r.start < start) throw BadValue("a page run outside every mapping");
      PageRun here = r;
      here.count = std::min(r.count, (end - r.start) / kPageBytes);
      own.push_back(here);
      r.start += here.count * kPageBytes;
      r.index += here.count;
      r.count -= here.count;
      if (r.count == 0) ++next_run;
    }
    const bool any_huge = std::any_of(own.begin(), own.end(), [](const PageRun& r) { return r.huge; });
    const auto protection = static_cast<int>(m.at("protection").as_int(0, 7));
    const bool anonymous = kind == "anonymous";
    PartedRuns parted;
    if (anonymous && moves && !advised(m, MADV_NOHUGEPAGE)) parted = part_runs(own, start, end);
    const bool open = anonymous && (moves ? !parted.huge.empty() : any_huge);
    const bool copy = anonymous && target.uffd && (moves || !any_huge);
    // Huge pages are moved between equally protected mappings, or else come by faulting writes.
    const int now = open ? PROT_READ | PROT_WRITE : protection;
    if (open) opened_[p.pid].push_back(&m);
    if (sysv) {
      run.flush();
      attach_sysv(p, m);
    } else {
      Batch& b = run.batch();
      run.expect(b.call(SYS_mmap, start, end - start, now, flags, fd, offset), "mmap", "making a mapping",
                 hex_range(start, end));
    }
    if (const Value* advice = m.find("advice")) {
      for (const Value& a : advice->as_list()) {
        // Before the pages come, so that huge ones can; DONTFORK and the like do not mind.
        Batch& b2 = run.batch();
        run.expect(b2.call(SYS_madvise, start, end - start, a.as_int(0, 100)), "madvise",
                   "advising about a mapping", hex_range(start, end));
      }
    }
    if (own.empty()) continue;
    for (const PageRun& r : own) total_bytes_ += r.count * kPageBytes;
    if (copy) watched.emplace_back(start, end);
    if (!parted.huge.empty()) {
      huge.insert(huge.end(), parted.huge.begin(), parted.huge.end());
      own = std::move(parted.small);
    }
    const auto how = copy ? Fill::How::copy : open ? Fill::How::write_vm : Fill::How::write;
    for (const PageRun& r : own) fills_.push_back({number, r, how, -1});
  }
  if (next_run != runs.size()) throw BadValue("a page run outside every mapping");
  run.flush();
  for (const auto& [start, end] : watched) {
    uffdio_register r{};
    r.range = {start, end - start};
    r.mode = UFFDIO_REGISTER_MODE_MISSING;
    check(ioctl(target.uffd.get(), UFFDIO_REGISTER, &r), "ioctl", "preparing memory for its pages");
  }
  HugeStage stage(huge);
  if (!huge.empty() && stage.make(tree_, p)) {
    for (const PageRun& r : stage.placed()) fills_.push_back({number, r, Fill::How::write_vm, -1});
    target.stage = std::move(stage);
  } else {
    for (const PageRun& r : huge) fills_.push_back({number, r, Fill::How::copy, -1});
    close_uffd(target);
  }
}

void MemoryRebuilder::finish(GrownProcess& p) {
  BatchRunner run(tree_, p);
  for (const Value* m : opened_[p.pid]) {
    Batch& b = run.batch();
    run.expect(
        b.call(SYS_mprotect, start_of(*m), end_of(*m) - start_of(*m), m->at("protection").as_int(0, 7)),
        "mprotect", "protecting a mapping", hex_range(start_of(*m), end_of(*m)));
  }
  for (const Value& m : p.record->at("mappings").as_list()) {
    const std::string& kind = m.at("kind").as_string();
    if (kind == "vdso" || kind == "vvar") continue;
    const uint64_t start = start_of(m), end = end_of(m);
    if (m.get_bool("locked", false)) {
      Batch& b = run.batch();
      const int how = m.get_bool("lockedOnFault", false) ? MLOCK_ONFAULT : 0;
      run.expect(b.call(SYS_mlock2, start, end - start, how), "mlock2", "locking memory",
                 hex_range(start, end));
    }
    for (const auto& [from, to] : guards_of(m)) {
      Batch& b = run.batch();
      run.expect(b.call(SYS_madvise, from, to - from, kInstallGuard), "madvise", "guarding memory",
                 hex_range(from, to));
    }
  }
  run.flush();
}

void MemoryRebuilder::seal() {
  for (const Value& object : plan_.at("memory").as_list()) {
    const std::string& kind = object.at("kind").as_string();
    if (kind == "sysv" && object.get_bool("removed", false)) {
      context_.call(SYS_shmctl, object.at("shmid").as_int(), IPC_RMID, 0);
    }
    if (kind != "memfd") continue;
    const auto seals = static_cast<int>(object.get_int("seals", 0));
    if (seals == 0) continue;
    const UniqueFd fd = context_.take(context_.memory_fds.at(object.at("id").as_int()));
    check(fcntl(fd.get(), F_ADD_SEALS, seals), "fcntl", "sealing a memfd");
  }
}

}  // namespace virt
