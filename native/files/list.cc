#include "files/list.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <map>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/fault.h"
#include "files/attributes.h"
#include "files/beneath.h"
#include "files/copy.h"
#include "sys/file.h"

namespace virt {
namespace {

constexpr int kNoLayer = -1;
constexpr size_t kDeepest = 1000;  // directories in each other: a path has at most 4096 bytes

// File systems whose content the kernel makes up (statfs(2)).
bool made_by_kernel(int fd) {
  constexpr long kMagics[] = {0x9fa0 /* proc */,        0x62656572 /* sysfs */,
                              0x63677270 /* cgroup2 */, 0x27e0eb /* cgroup */,
                              0x64626720 /* debugfs */, 0x74726163 /* tracefs */,
                              0xcafe4a11 /* bpf */,     0x1cd1 /* devpts */,
                              0x19800202 /* mqueue */,  0x73636673 /* securityfs */};
  struct statfs fs {};
  if (fstatfs(fd, &fs) != 0) return false;
  return std::find(std::begin(kMagics), std::end(kMagics), fs.f_type) != std::end(kMagics);
}

std::string relative(const std::string& path) { return path.substr(std::min<size_t>(path.size(), 1)); }

std::string joined(const std::string& directory, const std::string& name) {
  std::string out = directory;
  out += '/';
  return out += name;
}

std::string link_target(int fd) {
  char text[4096];  // PATH_MAX
  const ssize_t n = readlinkat(fd, "", text, sizeof text);
  return n > 0 ? std::string(text, static_cast<size_t>(n)) : std::string();
}

// The directories everything is looked for in: the pod's root, and the upper directories of its overlays.
class Roots {
 public:
  explicit Roots(const Value& request)
      : root_(open_file(request.at("root").as_string(), O_PATH | O_DIRECTORY)) {
    const Value* layers = request.find("layers");
    if (layers == nullptr) return;
    for (const Value& l : layers->as_list()) {
      layers_.push_back(open_file(l.at("upper").as_string(), O_PATH | O_DIRECTORY));
      at_.push_back(l.at("at").as_string());
    }
  }
  [[nodiscard]] int count() const { return static_cast<int>(layers_.size()); }
  [[nodiscard]] const std::string& at(int layer) const { return at_.at(static_cast<size_t>(layer)); }
  [[nodiscard]] UniqueFd try_open(int layer, const std::string& at, int flags) const {
    return try_open_beneath(layer == kNoLayer ? root_.get() : layers_.at(static_cast<size_t>(layer)).get(),
                            relative(at), flags);
  }

 private:
  UniqueFd root_;
  std::vector<UniqueFd> layers_;
  std::vector<std::string> at_;
};

class Lister {
 public:
  explicit Lister(const Value& request) : roots_(request) {
    for (int layer = 0; layer < roots_.count(); ++layer) add_children(layer, prefix_of(layer), "", 0);
    for (const Value& p : request.at("paths").as_list()) {
      const std::string& path = p.at("path").as_string();
      add(kNoLayer, path, p.get_string("at", path), p.get_bool("tree", false), 0);
      if (p.get_bool("follow", false)) follow(path, p.get_string("at", path));
    }
    if (request.get_bool("ancestors", false)) add_ancestors();
    join_links();
  }

  Value take() {
    Value list = Value::list();
    for (auto& [path, found] : entries_) list.push(std::move(found.record));
    return Value::map().set("entries", std::move(list)).set("refused", std::move(refused_));
  }

 private:
  struct Found {
    Value record;
    std::pair<uint64_t, uint64_t> inode;
    bool linked = false;
  };

  [[nodiscard]] std::string prefix_of(int layer) const {
    return roots_.at(layer) == "/" ? "" : roots_.at(layer);
  }

  void refuse(const std::string& path, const std::string& reason) {
    refused_.push(Value::map().set("path", path).set("reason", reason));
  }

  void add(int layer, const std::string& path, const std::string& at, bool tree, size_t depth) {
    if (path == "/") {
      if (tree) add_children(layer, "", "", depth);
      return;
    }
    const auto known = entries_.find(path);
    if (known == entries_.end() && !look(layer, path, at)) return;
    if (tree && entries_.at(path).record.at("type").as_string() == "directory")
      add_children(layer, path, at, depth + 1);
  }

  // False if there is nothing that could be taken.
  bool look(int layer, const std::string& path, const std::string& at) {
    const UniqueFd fd = roots_.try_open(layer, at, O_PATH | O_NOFOLLOW);
    if (!fd) {
      // A link on the way: what was known under this path lies elsewhere now, under its own.
      const bool gone = errno == ENOENT || errno == ENOTDIR || errno == ELOOP || errno == EXDEV;
      if (!gone) refuse(path, errno_name(errno));
      if (gone && stands_for_bytes(layer, path, at)) refuse(path, "name");
      return false;
    }
    struct stat st {};
    check(fstat(fd.get(), &st), "fstat", "looking at a file of the pod");
    if (made_by_kernel(fd.get())) return false;
    const bool whiteout = layer != kNoLayer && S_ISCHR(st.st_mode) && st.st_rdev == makedev(0, 0);
    const char* type = S_ISREG(st.st_mode)    ? "file"
                       : S_ISDIR(st.st_mode)  ? "directory"
                       : S_ISLNK(st.st_mode)  ? "symlink"
                       : S_ISFIFO(st.st_mode) ? "fifo"
                       : whiteout             ? "absent"
                                              : nullptr;
    if (type == nullptr) {
      refuse(path, S_ISSOCK(st.st_mode) ? "socket" : "device");
      return false;
    }
    if (!is_text(path)) {
      refuse(path, "name");
      return false;
    }
    Found found;
    found.inode = {st.st_dev, st.st_ino};
    found.linked = S_ISREG(st.st_mode) && st.st_nlink > 1;
    Value& r = found.record;
    r = Value::map().set("path", path).set("type", type);
    if (layer != kNoLayer) r.set("layer", layer);
    if (at != path) r.set("at", at);
    if (!whiteout) describe_attributes(st, r);
    if (S_ISLNK(st.st_mode)) {
      const std::string target = link_target(fd.get());
      if (!is_text(target)) {
        refuse(path, "name");
        return false;
      }
      r.set("target", target);
    }
    if (S_ISREG(st.st_mode)) {
      if (!try_reopen(fd.get(), O_RDONLY)) {
        refuse(path, errno_name(errno));
        return false;
      }
      r.set("sizeBytes", int64_t{st.st_size});
      constexpr int64_t kBlock = 512;  // stat(2)
      if (st.st_blocks * kBlock < st.st_size) r.set("sparse", true);
    }
    if (S_ISREG(st.st_mode) || S_ISDIR(st.st_mode)) describe_xattrs(fd.get(), r);
    if (layer != kNoLayer && S_ISDIR(st.st_mode) && is_opaque(fd.get())) r.set("opaque", true);
    entries_.emplace(path, std::move(found));
    return true;
  }

  // The journal shows U+FFFD for bytes that are no text: is there such a name?
  [[nodiscard]] bool stands_for_bytes(int layer, const std::string& path, const std::string& at) const {
    if (path.find("\xef\xbf\xbd") == std::string::npos) return false;
    const UniqueFd parent = roots_.try_open(layer, parent_path(at), O_RDONLY | O_DIRECTORY);
    if (!parent) return false;
    const auto names = try_list_names(path_of_fd(parent.get()));
    return names &&
           std::any_of(names->begin(), names->end(), [](const std::string& n) { return !is_text(n); });
  }

  void add_children(int layer, const std::string& path, const std::string& at, size_t depth) {
    if (depth > kDeepest) {
      refuse(path, "depth");
      return;
    }
    const UniqueFd fd = roots_.try_open(layer, at, O_RDONLY | O_DIRECTORY);
    if (!fd) {
      if (errno != ENOENT) refuse(path.empty() ? "/" : path, errno_name(errno));
      return;
    }
    auto names = try_list_names(path_of_fd(fd.get()));
    if (!names) return;
    for (const std::string& name : *names) add(layer, joined(path, name), joined(at, name), true, depth);
  }

  // What a program wrote through a link is what the link leads to, as the pod sees it.
  void follow(const std::string& path, const std::string& at) {
    const auto known = entries_.find(path);
    if (known == entries_.end() || known->second.record.at("type").as_string() != "symlink") return;
    constexpr int kMostLinks = 40;
    std::string name = at;
    for (int i = 0; i < kMostLinks; ++i) {
      const UniqueFd link = roots_.try_open(kNoLayer, name, O_PATH | O_NOFOLLOW);
      struct stat st {};
      if (!link || fstat(link.get(), &st) != 0) return;
      if (!S_ISLNK(st.st_mode)) {
        add(kNoLayer, name, name, false, 0);
        return;
      }
      const std::string target = link_target(link.get());
      if (target.empty()) return;
      name = plain_path(target[0] == '/' ? target : joined(parent_path(name), target));
    }
  }

  // "/a/./b/../c" → "/a/c". Links before the last name are not followed: then nothing is found.
  static std::string plain_path(const std::string& path) {
    std::vector<std::string> parts;
    size_t start = 0;
    while (start <= path.size()) {
      size_t end = path.find('/', start);
      if (end == std::string::npos) end = path.size();
      const std::string part = path.substr(start, end - start);
      if (part == ".." && !parts.empty()) parts.pop_back();
      if (!part.empty() && part != "." && part != "..") parts.push_back(part);
      start = end + 1;
    }
    std::string out;
    for (const std::string& part : parts) out = joined(out, part);
    return out.empty() ? "/" : out;
  }

  void add_ancestors() {
    std::vector<std::string> above;
    for (const auto& [path, found] : entries_) {
      for (std::string p = parent_path(path); !p.empty(); p = parent_path(p)) above.push_back(p);
    }
    for (const std::string& path : above) add(kNoLayer, path, path, false, 0);
  }

  // The first name of a file has its content, the others say which that is.
  void join_links() {
    std::map<std::pair<uint64_t, uint64_t>, std::string> first;
    for (auto& [path, found] : entries_) {
      if (!found.linked) continue;
      const auto [one, is_first] = first.emplace(found.inode, path);
      if (!is_first) found.record.set("linkTo", one->second);
    }
  }

  Roots roots_;
  std::map<std::string, Found> entries_;
  Value refused_ = Value::list();
};

}  // namespace

Value list_files(const Value& request) {
  fault_point("list-files");
  return Lister(request).take();
}

Value copy_files(const Value& request) {
  fault_point("copy-files");
  const Roots roots(request);
  const UniqueFd directory = open_file(request.at("directory").as_string(), O_PATH | O_DIRECTORY);
  Value sizes = Value::list();
  for (const Value& f : request.at("files").as_list()) {
    const std::string& path = f.at("path").as_string();
    try {
      const UniqueFd found = roots.try_open(static_cast<int>(f.get_int("layer", kNoLayer)),
                                            f.get_string("at", path), O_PATH | O_NOFOLLOW);
      const UniqueFd from = found ? try_reopen(found.get(), O_RDONLY) : UniqueFd();
      if (!from) throw OsError("openat2", errno, "reading a file to carry");
      const std::string& name = f.at("name").as_string();
      UniqueFd to(
          openat(directory.get(), name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600));
      if (!to) throw OsError("openat", errno, "making a file of the image");
      sizes.push(static_cast<int64_t>(copy_content(from.get(), to.get(), INT64_MAX, false)));
    } catch (OsError& e) {
      e.at_path(path);
      throw;
    }
  }
  return sizes;
}

}  // namespace virt
