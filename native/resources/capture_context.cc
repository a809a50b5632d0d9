#include "resources/capture_context.h"

#include <fcntl.h>
#include <linux/netlink.h>
#include <sys/socket.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>

#include <algorithm>
#include <cerrno>

#include "base/error.h"
#include "sys/file.h"

namespace virt {
namespace {

constexpr std::string_view kDeleted = " (deleted)";

// Files that the kernel makes up as they are read: size and times say nothing about them (statfs(2)).
bool made_by_kernel(const std::string& path) {
  constexpr long kMagics[] = {0x9fa0 /* proc */,
                              0x62656572 /* sysfs */,
                              0x63677270 /* cgroup2 */,
                              0x27e0eb /* cgroup */,
                              0x64626720 /* debugfs */,
                              0x74726163 /* tracefs */,
                              0xcafe4a11 /* bpf */};
  struct statfs fs {};
  if (statfs(path.c_str(), &fs) != 0) return false;
  return std::find(std::begin(kMagics), std::end(kMagics), fs.f_type) != std::end(kMagics);
}

int64_t nanoseconds(const timespec& t) { return int64_t{t.tv_sec} * 1'000'000'000 + t.tv_nsec; }

}  // namespace

bool shown_deleted(const std::string& link) { return link.ends_with(kDeleted); }

std::string without_deleted(const std::string& link) {
  return shown_deleted(link) ? link.substr(0, link.size() - kDeleted.size()) : link;
}

CaptureContext::CaptureContext(pid_t init_host_pid, std::vector<Inode> streams, int terminal_master,
                               unsigned terminal_index)
    : init_host_pid_(init_host_pid),
      streams_(std::move(streams)),
      terminal_master_(terminal_master),
      terminal_index_(terminal_index) {
  struct stat st {};
  if (stat_in_pod("/dev/pts", &st)) devpts_device_ = st.st_dev;
}

bool CaptureContext::stat_in_pod(const std::string& path, struct stat* st) const {
  return stat((proc_path(init_host_pid_, "root") + path).c_str(), st) == 0;
}

std::optional<int> CaptureContext::launcher_stream(const struct stat& st, bool* of_exec) const {
  for (size_t i = 0; i < streams_.size(); ++i) {
    if (streams_[i] != inode_of(st) || streams_[i].second == 0) continue;
    // The terminal that init keeps and plain devices are known by their own kinds.
    if (S_ISCHR(st.st_mode) && (st.st_dev == devpts_device_ || major(st.st_rdev) == 1)) return std::nullopt;
    *of_exec = i >= 3;
    return static_cast<int>(i % 3);
  }
  return std::nullopt;
}

Handle* CaptureContext::handle_of(pid_t host_pid, int host_fd) {
  const int pid = to_pod_pid(host_pid);
  for (Handle& h : *handles) {
    for (const HandleUse& use : h.uses) {
      if (use.pid == pid && use.fd == host_fd) return &h;
    }
  }
  return nullptr;
}

const std::map<uint64_t, UnixSocketInfo>& CaptureContext::unix_sockets() {
  if (!unix_sockets_) unix_sockets_ = list_unix_sockets(make_socket(AF_NETLINK, SOCK_RAW, NETLINK_SOCK_DIAG));
  return *unix_sockets_;
}

const OptionValues& CaptureContext::fresh_options(int fd) {
  const auto value_of = [fd](int name) {
    int value = 0;
    socklen_t size = sizeof value;
    check(getsockopt(fd, SOL_SOCKET, name, &value, &size), "getsockopt", "examining a socket");
    return value;
  };
  const std::array<int, 3> values{value_of(SO_DOMAIN), value_of(SO_TYPE), value_of(SO_PROTOCOL)};
  const auto known = fresh_options_.find(values);
  if (known != fresh_options_.end()) return known->second;
  const UniqueFd fresh = make_socket(values[0], values[1], values[2]);
  return fresh_options_.emplace(values, option_values(fresh.get())).first->second;
}

int CaptureContext::file(const std::string& shown_path, const struct stat& st, int fd, const Blocker& about) {
  const Inode inode = inode_of(st);
  if (const auto known = file_ids_.find(inode); known != file_ids_.end()) return known->second;
  const int id = static_cast<int>(files_.size());
  const std::string path = without_deleted(shown_path);
  Value f = Value::map();
  f.set("id", id)
      .set("path", path)
      .set("sizeBytes", int64_t{st.st_size})
      .set("mode", static_cast<int>(st.st_mode));
  f.set("mtimeNs", std::to_string(nanoseconds(st.st_mtim)));
  struct stat there {};
  if (st.st_nlink == 0 && S_ISREG(st.st_mode)) {
    // Nobody can reach it by name: its content travels with the pod.
    UniqueFd own(fd >= 0 ? open(("/proc/self/fd/" + std::to_string(fd)).c_str(), O_RDONLY | O_CLOEXEC) : -1);
    if (!own) {
      Blocker b = about;
      b.code = "ERR_FILE_UNREACHABLE";
      b.reason = "an unlinked file that cannot be read";
      b.hint = "let the program close it, or open it for reading as well";
      b.path = path;
      block(std::move(b));
      return -1;
    }
    f.set("unlinked", true);
    carried_.push_back({id, std::move(own), static_cast<uint64_t>(st.st_size)});
  } else if (!stat_in_pod(path, &there) || inode_of(there) != inode) {
    Blocker b = about;
    b.code = "ERR_FILE_REPLACED";
    b.reason = shown_deleted(shown_path) ? "a file whose name was removed while it has others"
                                         : "a file that its name does not lead to any more";
    b.hint = "put the file back under this name, or let the program reopen it";
    b.path = path;
    block(std::move(b));
    return -1;
  }
  if (!f.get_bool("unlinked", false) && made_by_kernel(proc_path(init_host_pid_, "root") + path))
    f.set("byKernel", true);
  file_ids_[inode] = id;
  files_.push_back(std::move(f));
  return id;
}

Value CaptureContext::files() const { return Value(Value::List(files_.begin(), files_.end())); }

int CaptureContext::object(const std::string& kind, const Inode& inode, const std::function<Value()>& make) {
  if (const auto known = object_ids_.find(inode); known != object_ids_.end()) return known->second;
  const int id = static_cast<int>(objects_.size());
  object_ids_[inode] = id;
  objects_.emplace_back();
  Value v = make();
  v.set("id", id).set("kind", kind);
  objects_[static_cast<size_t>(id)] = std::move(v);
  return id;
}

std::optional<int> CaptureContext::find_object(const Inode& inode) const {
  const auto known = object_ids_.find(inode);
  return known == object_ids_.end() ? std::nullopt : std::optional(known->second);
}

Value CaptureContext::objects() const { return Value(Value::List(objects_.begin(), objects_.end())); }

MemoryObject& CaptureContext::memory(const std::string& kind, const Inode& inode, uint64_t size) {
  for (MemoryObject& m : memories_) {
    if (m.inode == inode) {
      m.size = std::max(m.size, size);
      return m;
    }
  }
  MemoryObject m;
  m.id = static_cast<int>(memories_.size());
  m.kind = kind;
  m.inode = inode;
  m.size = size;
  m.record = Value::map();
  memories_.push_back(std::move(m));
  return memories_.back();
}

const std::string& CaptureContext::TcpPolicy::of(const std::string& address, int port) const {
  for (const Rule& r : rules) {
    if ((r.address.empty() || r.address == address) && (r.port == 0 || r.port == port)) return r.policy;
  }
  return otherwise;
}

bool CaptureContext::hold(Handle& handle, HeldAs as, uint64_t peer) {
  if (!holds) return false;
  if (const FarWays::Way* way = far.of(handle.dup.get(), handle.st.st_ino, peer); way != nullptr) {
    Value where = Value::list();
    where.push(way->first);
    where.push(static_cast<int64_t>(way->second));
    handle.record.set("far", std::move(where));
    return true;
  }
  handle.held = as;
  handle.record.set("held", true);
  return true;
}

void CaptureContext::block(Blocker blocker) {
  if (!blocker.kind.empty() && drop.contains(blocker.kind)) {
    accepted.push_back("dropped " + blocker.kind +
                       (blocker.pid ? " of pid " + std::to_string(*blocker.pid) : "") +
                       (blocker.fd ? ", fd " + std::to_string(*blocker.fd) : "") + ": " + blocker.reason);
    return;
  }
  blockers.push_back(std::move(blocker));
}

void CaptureContext::block(const Handle& handle, const std::string& code, const std::string& reason,
                           const std::string& hint) {
  Blocker b;
  b.code = code;
  b.reason = reason;
  b.hint = hint;
  b.kind = handle.kind != nullptr ? handle.kind->name : "handle";
  b.path = handle.link;
  if (!handle.uses.empty()) {
    b.pid = handle.uses[0].pid;
    b.fd = handle.uses[0].fd;
  }
  block(std::move(b));
}

}  // namespace virt
