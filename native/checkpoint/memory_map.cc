#include "checkpoint/memory_map.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <cerrno>

#include "base/error.h"
#include "sys/file.h"

namespace virt {
namespace {

struct Advice {
  const char* flag;  // VmFlags, proc(5)
  int advice;        // madvise(2)
};
constexpr Advice kAdvice[] = {{"dc", MADV_DONTFORK},   {"dd", MADV_DONTDUMP}, {"wf", MADV_WIPEONFORK},
                              {"mg", MADV_MERGEABLE},  {"hg", MADV_HUGEPAGE}, {"nh", MADV_NOHUGEPAGE},
                              {"sr", MADV_SEQUENTIAL}, {"rr", MADV_RANDOM}};

class ProcessMemory {
 public:
  ProcessMemory(const FrozenProcess& p, size_t owner, CaptureContext& c, const Precopy* precopy,
                SurveyedMemory& out)
      : p_(p),
        owner_(owner),
        c_(c),
        precopy_(precopy),
        out_(out),
        scanner_(p.host_pid),
        memory_(p.host_pid) {}

  Value run(const std::vector<Vma>& vmas) {
    for (const Vma& v : vmas) {
      if (v.path == "[vsyscall]" || is_leftover(v, memory_)) continue;
      Value m = Value::map();
      m.set("start", static_cast<int64_t>(v.start))
          .set("end", static_cast<int64_t>(v.end))
          .set("protection", v.protection);
      if (!describe(v, m)) continue;
      if (v.shared) m.set("shared", true);
      if (v.has("gd")) m.set("growsDown", true);
      if (v.has("nr")) m.set("noReserve", true);
      if (v.has("lo")) m.set("locked", true);
      if (v.has("lf")) m.set("lockedOnFault", true);
      Value advice = Value::list();
      for (const Advice& a : kAdvice) {
        if (v.has(a.flag)) advice.push(a.advice);
      }
      if (!advice.as_list().empty()) m.set("advice", std::move(advice));
      list_.push(std::move(m));
    }
    return std::move(list_);
  }

 private:
  void block(const Vma& v, const char* code, std::string reason, std::string hint) {
    Blocker b;
    b.code = code;
    b.reason = std::move(reason);
    b.hint = std::move(hint);
    b.pid = p_.pid;
    b.kind = "mapping";
    b.path = v.path;
    c_.block(std::move(b));
  }

  // Fills in what kind of mapping it is; false if it has no place in the image.
  bool describe(const Vma& v, Value& m) {
    if (v.path == "[vdso]" || v.path.starts_with("[vvar")) {
      m.set("kind", v.path == "[vdso]" ? "vdso" : "vvar");
      if (v.path == "[vdso]" && out_.vdso.empty()) {
        out_.vdso.resize(v.size());
        memory_.read(v.start, out_.vdso.data(), out_.vdso.size());
      }
      return true;
    }
    if (v.has("ht")) {
      block(v, "ERR_UNSUPPORTED", "memory of huge pages (hugetlbfs)", "not carried yet");
      return false;
    }
    const bool ours = precopy_ != nullptr && precopy_->registered(p_.host_pid, v);
    if ((v.has("um") || v.has("uw") || v.has("ui")) && !ours) {
      block(v, "ERR_UNSUPPORTED", "memory that is watched with userfaultfd",
            "let the program unregister it first");
      return false;
    }
    if (v.has("sl")) {
      block(v, "ERR_UNSUPPORTED", "a sealed mapping (mseal)", "not carried yet");
      return false;
    }
    if (v.protection_key != 0) {
      block(v, "ERR_UNSUPPORTED", "memory with a protection key", "not carried yet");
      return false;
    }
    if (!v.backed()) {
      m.set("kind", "anonymous");
      add_own_pages(v, m);
      return true;
    }
    return v.shared ? describe_shared(v, m) : describe_private(v, m);
  }

  static bool is_device(const struct stat& st) { return S_ISCHR(st.st_mode) || S_ISBLK(st.st_mode); }

  // The file a mapping shows, if its path still leads to it. Some file systems (btrfs, overlayfs) show
  // another device number in maps than in stat: the inode decides.
  bool find_file(const Vma& v, struct stat* st) {
    return !shown_deleted(v.path) && c_.stat_in_pod(v.path, st) && st->st_ino == v.inode;
  }

  bool describe_private(const Vma& v, Value& m) {
    struct stat st {};
    if (v.path.starts_with("/dev/zero")) {
      m.set("kind", "anonymous");
      add_own_pages(v, m);
      return true;
    }
    if (v.path.starts_with("/memfd:") || v.path.starts_with("/SYSV")) return describe_memory(v, m);
    const bool found = find_file(v, &st);
    if (found && is_device(st)) {
      block(v, "ERR_UNSUPPORTED",
            "a mapping of device " + std::to_string(major(st.st_rdev)) + ":" +
                std::to_string(minor(st.st_rdev)),
            "the kernel lets nobody carry a device's memory");
      return false;
    }
    if (!found) return describe_lost(v, m);
    m.set("kind", "file")
        .set("file", c_.file(v.path, st, -1, about(v)))
        .set("offset", static_cast<int64_t>(v.offset));
    add_own_pages(v, m);
    return true;
  }

  // A private mapping of a file that is gone or replaced (an upgraded library): the program needs the bytes
  // it sees, so all of them travel, as memory of its own.
  bool describe_lost(const Vma& v, Value& m) {
    m.set("kind", "anonymous").set("was", v.path);
    char byte;
    uint64_t end = v.start;  // beyond the end of the file there is nothing to read
    while (end < v.end && memory_.try_read(end, &byte, 1) == 1) end += kPageBytes;
    if (end > v.start) add_job({{v.start, end, false}});
    return true;
  }

  bool describe_shared(const Vma& v, Value& m) {
    struct stat st {};
    if (v.path.starts_with("/memfd:") || v.path.starts_with("/SYSV") || v.path.starts_with("/dev/zero")) {
      return describe_memory(v, m);
    }
    if (find_file(v, &st)) {
      if (is_device(st)) {
        block(v, "ERR_UNSUPPORTED",
              "a mapping of device " + std::to_string(major(st.st_rdev)) + ":" +
                  std::to_string(minor(st.st_rdev)),
              "the kernel lets nobody carry a device's memory");
        return false;
      }
      m.set("kind", "file")
          .set("file", c_.file(v.path, st, -1, about(v)))
          .set("offset", static_cast<int64_t>(v.offset));
      if (v.has("mw")) m.set("writable", true);  // opened for writing, whatever the protection is now
      return true;
    }
    if (const Handle* h = open_handle_of(v)) {
      // Unlinked, but some fd still shows it.
      m.set("kind", "file")
          .set("file", c_.file(h->link, h->st, h->dup.get(), about(v)))
          .set("offset", static_cast<int64_t>(v.offset));
      if (v.has("mw")) m.set("writable", true);
      return true;
    }
    block(v, "ERR_FILE_UNREACHABLE", "a shared mapping of a file that was removed",
          "let the program unmap it first");
    return false;
  }

  const Handle* open_handle_of(const Vma& v) {
    for (const Handle& h : *c_.handles) {
      if (S_ISREG(h.st.st_mode) && h.st.st_ino == v.inode && major(h.st.st_dev) == v.major &&
          minor(h.st.st_dev) == v.minor) {
        return &h;
      }
    }
    return nullptr;
  }

  bool describe_memory(const Vma& v, Value& m) {
    const bool sysv = v.path.starts_with("/SYSV");
    // Shared anonymous memory of a pod that was reattached is a memfd of ours.
    const bool ours = v.path.starts_with("/memfd:virt-run-shared ");
    const std::string kind = sysv ? "sysv" : v.path.starts_with("/memfd:") && !ours ? "memfd" : "anonymous";
    MemoryObject& object = c_.memory(kind, Inode{makedev(v.major, v.minor), v.inode}, v.offset + v.size());
    if (kind == "memfd" && object.record.find("name") == nullptr) {
      object.record.set("name", without_deleted(v.path).substr(7)).set("seals", 0).set("mode", 0777);
    }
    if (sysv) object.record.set("shmid", static_cast<int64_t>(v.inode));
    m.set("kind", "memory").set("memory", object.id).set("offset", static_cast<int64_t>(v.offset));
    if (v.has("mw")) m.set("writable", true);
    if (!v.shared) add_own_pages(v, m);
    out_.mappers[object.id].push_back({owner_, v});
    return true;
  }

  Blocker about(const Vma& v) const {
    Blocker b;
    b.pid = p_.pid;
    b.kind = "mapping";
    b.path = v.path;
    return b;
  }

  std::vector<PageRange> own_pages(const Vma& v) {
    std::vector<PageRange> pages = scanner_.scan(v.start, v.end, true, is_watched(v));
    if (!is_watched(v) || !v.backed()) return pages;
    // What is absent is a page of the process's own that is swapped out, or the mark of one that was sent and then dropped:
    // there the file is seen again. Reading it brings back whichever it is.
    bool any = false;
    for (const PageRange& r : pages) {
      char byte;
      for (uint64_t at = r.start; r.absent && r.unwritten && at < r.end; at += kPageBytes) {
        (void)memory_.try_read(at, &byte, 1);
        any = true;
      }
    }
    if (!any) return pages;
    pages = scanner_.scan(v.start, v.end, true, true);
    // Nobody knows what it is: read once more, and an error if it cannot be.
    for (PageRange& r : pages) r.unwritten = r.unwritten && !r.absent;
    return pages;
  }

  // The pages of a private mapping that are the process's own, and its guard regions.
  void add_own_pages(const Vma& v, Value& m) {
    std::vector<PageRange> pages;
    Value guards = Value::list();
    for (PageRange& r : own_pages(v)) {
      if (r.guard) {
        Value pair = Value::list();
        pair.push(static_cast<int64_t>(r.start));
        pair.push(static_cast<int64_t>(r.end));
        guards.push(std::move(pair));
        continue;
      }
      r.keep_zeros = v.backed();
      if (r.unwritten) {
        precopy_->known(p_.host_pid, r, &pages, &out_.known[owner_]);
      } else {
        pages.push_back(r);
      }
    }
    if (!guards.as_list().empty()) m.set("guards", std::move(guards));
    add_job(std::move(pages));
  }

  void add_job(std::vector<PageRange> ranges) {
    if (ranges.empty()) return;
    for (const PageRange& r : ranges) out_.resident_bytes += r.end - r.start;
    if (job_ == nullptr) {
      PageJob job;
      job.host_pid = p_.host_pid;
      job.owner = owner_;
      out_.jobs.push_back(std::move(job));
      job_ = &out_.jobs.back();
    }
    job_->ranges.insert(job_->ranges.end(), ranges.begin(), ranges.end());
  }

  [[nodiscard]] bool is_watched(const Vma& v) const {
    return precopy_ != nullptr && precopy_->watches(p_.host_pid, v);
  }

  const FrozenProcess& p_;
  size_t owner_;
  CaptureContext& c_;
  const Precopy* precopy_;
  SurveyedMemory& out_;
  PageScanner scanner_;
  RemoteMemory memory_;
  PageJob* job_ = nullptr;
  Value list_ = Value::list();
};

}  // namespace

// Part of an object, in bytes from its start, and who is to read it: the first that maps it.
struct Stretch {
  uint64_t start, end;
  const Mapper* mapper;
};

static std::vector<Stretch> stretches(const std::vector<Mapper>& mappers) {
  std::vector<uint64_t> bounds;
  for (const Mapper& m : mappers) {
    bounds.push_back(m.vma.offset);
    bounds.push_back(m.vma.offset + m.vma.size());
  }
  std::sort(bounds.begin(), bounds.end());
  bounds.erase(std::unique(bounds.begin(), bounds.end()), bounds.end());
  std::vector<Stretch> out;
  for (size_t i = 0; i + 1 < bounds.size(); ++i) {
    const auto covers = [&](const Mapper& m) {
      return m.vma.offset <= bounds[i] && bounds[i + 1] <= m.vma.offset + m.vma.size();
    };
    const auto reader = std::find_if(mappers.begin(), mappers.end(), covers);
    if (reader != mappers.end()) out.push_back({bounds[i], bounds[i + 1], &*reader});
  }
  return out;
}

void survey_memory(const FrozenProcess& process, size_t owner, const std::vector<Vma>& vmas,
                   CaptureContext& context, const Precopy* precopy, SurveyedMemory& out) {
  if (out.mappings.size() <= owner) out.mappings.resize(owner + 1);
  out.mappings[owner] = ProcessMemory(process, owner, context, precopy, out).run(vmas);
}

void survey_objects(CaptureContext& context, SurveyedMemory& out) {
  for (const MemoryObject& m : context.memories()) {
    if (m.fd < 0) continue;
    PageJob job;
    job.of_memory = true;
    job.owner = static_cast<size_t>(m.id);
    // A description of our own: SEEK_DATA moves the offset, which the program's descriptions must keep.
    UniqueFd fd(open(("/proc/self/fd/" + std::to_string(m.fd)).c_str(), O_RDONLY | O_CLOEXEC));
    if (!fd) throw OsError("open", errno, "reading a memfd");
    off_t at = 0;
    const auto end = static_cast<off_t>(m.size);
    while (at < end) {
      const off_t data = lseek(fd.get(), at, SEEK_DATA);
      if (data < 0) {
        if (errno == ENXIO) break;
        throw OsError("lseek", errno, "finding a memfd's pages");
      }
      const off_t hole = check(lseek(fd.get(), data, SEEK_HOLE), "lseek", "finding a memfd's pages");
      const auto first = static_cast<uint64_t>(data) / kPageBytes * kPageBytes;
      const uint64_t last = (static_cast<uint64_t>(hole) + kPageBytes - 1) / kPageBytes * kPageBytes;
      job.ranges.push_back({first, last, false});
      out.resident_bytes += last - first;
      at = hole;
    }
    if (job.ranges.empty()) continue;
    job.fd = fd.release();
    out.jobs.push_back(std::move(job));
  }
}

void survey_objects_through(FrozenProcess& process, size_t owner, Foothold& foothold, CaptureContext& context,
                            SurveyedMemory& out) {
  for (const MemoryObject& m : context.memories()) {
    const auto mappers = out.mappers.find(m.id);
    if (m.fd >= 0 || mappers == out.mappers.end()) continue;
    for (const Stretch& stretch : stretches(mappers->second)) {
      const Mapper& mapper = *stretch.mapper;
      if (mapper.process != owner) continue;
      PageJob job;
      job.host_pid = process.host_pid;
      job.of_memory = true;
      job.owner = static_cast<size_t>(m.id);
      job.rebase = mapper.vma.offset - mapper.vma.start;
      const uint64_t from = stretch.start - job.rebase, to = stretch.end - job.rebase;
      if (mapper.vma.swap_bytes > 0) {
        // mincore does not tell what is swapped out: read it all.
        job.ranges.push_back({from, to, false});
      } else {
        constexpr uint64_t kAtOnce = 64 << 10;  // pages: a byte each
        Agent& agent = foothold.agent();
        for (uint64_t at = from; at < to;) {
          const uint64_t pages = std::min(kAtOnce, (to - at) / kPageBytes);
          Batch b(agent.site());
          const RemoteAddress vector = b.out(pages);
          const size_t asked = b.call(SYS_mincore, at, pages * kPageBytes, vector);
          agent.run(foothold.borrow(0), b);
          b.must(asked, "mincore", "finding the pages of shared memory");
          std::string in_core(pages, '\0');
          b.read(vector, in_core.data(), pages);
          for (uint64_t i = 0; i < pages; ++i) {
            if ((in_core[i] & 1) == 0) continue;
            const uint64_t page = at + i * kPageBytes;
            if (!job.ranges.empty() && job.ranges.back().end == page) {
              job.ranges.back().end += kPageBytes;
            } else {
              job.ranges.push_back({page, page + kPageBytes, false});
            }
          }
          at += pages * kPageBytes;
        }
      }
      for (const PageRange& r : job.ranges) out.resident_bytes += r.end - r.start;
      if (!job.ranges.empty()) out.jobs.push_back(std::move(job));
    }
  }
}

}  // namespace virt
