#include "init/overlay.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>

#include "init/mounts.h"

namespace virt::init {
namespace {

using protocol::Layer;
using protocol::LayerKind;

// What the mount below forbids stays forbidden. (The numbers of statvfs(3) are those of mount(2).)
unsigned long flags_of(const std::string& path) {
  struct statvfs vfs {};
  return statvfs(path.c_str(), &vfs) == 0 ? vfs.f_flag & (MS_NOSUID | MS_NODEV | MS_NOEXEC) : 0;
}

// The two directories that overlayfs works with. They come as a mount of their own, that lies nowhere until it is laid over
// the directory (under the overlay): only what lies in our own namespace can be part of an overlay, and the root that the
// store was found in may have been left behind by a remap.
struct Store {
  UniqueFd upper, work;
};

// Paths are given by descriptor: in the options a comma or a colon would mean something.
bool mount_overlay(int lower, const Store& store, const std::string& at, unsigned long flags) {
  char options[160];
  std::snprintf(options, sizeof options,
                "userxattr,lowerdir=/proc/self/fd/%d,upperdir=/proc/self/fd/%d,workdir=/proc/self/fd/%d",
                lower, store.upper.get(), store.work.get());
  return mount("virt-run", at.c_str(), "overlay", flags, options) == 0;
}

bool lay(const UniqueFd& source, const std::string& at, Store* out) {
  if (!mount_tree(source, at)) return false;
  out->upper.reset(open((at + "/upper").c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  out->work.reset(open((at + "/work").c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  return out->upper && out->work;
}

Step mount_plain(const Layer& layer, const UniqueFd& source) {
  const UniqueFd lower(open(layer.at.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!lower) return failed("opening the directory below carried files");
  const unsigned long flags = flags_of(layer.at);
  Store store;
  if (!lay(source, layer.at, &store)) return failed("opening carried files");
  return mount_overlay(lower.get(), store, layer.at, flags) ? done()
                                                            : failed("mounting an overlay for carried files");
}

// A user's mounts are copies of the host's and locked together: an overlay cannot have one part of them (EINVAL). So below
// it lies a directory of mount points, and everything that is in the real one is mounted back on them, unless carried
// files stand in its place. What is in those is the host's then, as it was. The root cannot be mounted over: it is built
// aside and pivoted to (pivot_root(2)).
Step mount_assembled(const Layer& layer, const UniqueFd& source) {
  const bool root = layer.at == "/";
  const std::string stage = root ? "/tmp" : layer.at;
  const unsigned long flags = flags_of(layer.at);
  std::vector<Covered> contents;
  if (!list_covered(layer.at, &contents)) return failed("listing the directory below carried files");
  Store store;
  if (!lay(source, stage, &store)) return failed("opening carried files");
  if (mount("virt-run", stage.c_str(), "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755") != 0)
    return failed("covering the directory below carried files");
  const auto hidden = [&](const Covered& c) {
    struct stat st {};
    return fstatat(store.upper.get(), c.name.c_str(), &st, AT_SYMLINK_NOFOLLOW) == 0;
  };
  std::erase_if(contents, hidden);
  for (const Covered& c : contents) {
    const std::string point = stage + "/" + c.name;
    const int made = !c.link.empty() ? symlink(c.link.c_str(), point.c_str())
                     : c.directory   ? mkdir(point.c_str(), 0755)
                                     : mknod(point.c_str(), S_IFREG | 0644, 0);
    if (made != 0) return failed("rebuilding the directory below carried files");
  }
  const UniqueFd lower(open(stage.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!lower || !mount_overlay(lower.get(), store, stage, flags))
    return failed("mounting an overlay for carried files");
  for (const Covered& c : contents) {
    if (c.link.empty() && !mount_tree(c.fd, stage + "/" + c.name))
      return failed("rebuilding the directory below carried files");
  }
  if (root && (chdir(stage.c_str()) != 0 || syscall(SYS_pivot_root, ".", ".") != 0 ||
               umount2(".", MNT_DETACH) != 0 || chdir("/") != 0)) {
    return failed("changing the root directory for carried files");
  }
  return done();
}

}  // namespace

Layers::Layers(const protocol::LaunchPlan& plan) : plan_(plan) {
  for (const auto& remap : plan.remaps) to_come_.push_back(remap.to);
}

Step Layers::open() {
  for (const Layer& layer : plan_.layers) {
    One one;
    one.plan = &layer;
    one.source = clone_tree(AT_FDCWD, layer.source);
    if (!one.source) return failed("opening carried files");
    list_.push_back(std::move(one));
  }
  return done();
}

Step Layers::mount(One& one) {
  if (one.mounted) return done();
  one.mounted = true;
  switch (one.plan->kind) {
    case LayerKind::kFile:
      return mount_tree(one.source, one.plan->at) ? done() : failed("mounting a carried file");
    case LayerKind::kAssembled:
      return mount_assembled(*one.plan, one.source);
    case LayerKind::kOverlay:
      return mount_plain(*one.plan, one.source);
  }
  return {EINVAL, "mounting carried files"};
}

Step Layers::mount_above(const std::string& path) {
  for (One& one : list_) {
    const std::string& at = one.plan->at;
    const auto shows = [&](const std::string& remap) { return at == remap || is_below(at, remap); };
    if (!is_below(path, at) || std::any_of(to_come_.begin(), to_come_.end(), shows)) continue;
    if (const Step s = mount(one); s.failed()) return s;
  }
  return done();
}

void Layers::passed(const std::string& path) {
  const auto found = std::find(to_come_.begin(), to_come_.end(), path);
  if (found != to_come_.end()) to_come_.erase(found);
}

Step Layers::mount_rest() {
  for (One& one : list_) {
    if (const Step s = mount(one); s.failed()) return s;
  }
  return done();
}

}  // namespace virt::init
