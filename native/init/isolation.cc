#include "init/isolation.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string_view>
#include <vector>

#include "init/mounts.h"
#include "init/own_devices.h"
#include "init/rights.h"

namespace virt::init {
namespace {

using protocol::LaunchPlan;
using protocol::MountOperation;
using protocol::MountRule;

// Carries rules out. What they need of the mounts as they were is taken first, all of it.
class Isolation {
 public:
  explicit Isolation(const LaunchPlan& plan)
      : plan_(plan), no_devices_((plan.flags & protocol::kPlanNoDevices) != 0) {}

  Step run() {
    if (const Step s = take(); s.failed()) return s;
    if (const Step s = cover_all(); s.failed()) return s;
    for (size_t i = 0; i < plan_.mounts.size(); ++i) {
      if (const Step s = apply(plan_.mounts[i], &trees_[i]); s.failed()) return s;
    }
    // Mount points were made in them until now.
    for (const std::string& path : ours_) {
      if (!change_mount(path, kReadOnlyMount, 0, false)) return failed("isolating: closing a directory");
    }
    return done();
  }

 private:
  Step take() {
    for (const MountRule& rule : plan_.mounts) {
      trees_.emplace_back();
      const bool own = rule.operation == MountOperation::kOwn || rule.operation == MountOperation::kFile;
      if (rule.operation == MountOperation::kDevices) {
        if (const Step s = devices_.take(); s.failed()) return s;
      }
      if (rule.operation != MountOperation::kReadOnly && rule.operation != MountOperation::kWritable &&
          !own) {
        continue;
      }
      if (rule.path == "/") continue;  // in place: it cannot be mounted over
      const UniqueFd place = open_place(own ? rule.source : rule.path);
      if (place) trees_.back() = clone_place(place);
      if (!trees_.back()) return failed("isolating: holding what a rule names");
      uint64_t set = rule.operation == MountOperation::kWritable || rule.operation == MountOperation::kOwn
                         ? 0
                         : kReadOnlyMount;
      if (no_devices_ && rule.path != "/dev" && !is_below(rule.path, "/dev")) set |= kNoDevices;
      if (set != 0 && !change_mount(trees_.back(), set, 0, true)) {
        return failed("isolating: changing what a rule names");
      }
    }
    return done();
  }

  // What holds for everything that no rule names.
  Step cover_all() {
    uint64_t set = no_devices_ ? kNoDevices : 0;
    for (const MountRule& rule : plan_.mounts) {
      if (rule.path == "/" && rule.operation == MountOperation::kReadOnly) set |= kReadOnlyMount;
    }
    if (set == 0) return done();
    if (!change_mount("/", set, 0, true)) return failed("isolating: changing all mounts");
    // These two are the pod's own.
    for (const char* path : {"/proc", "/dev/pts"}) {
      if (!change_mount(path, 0, kReadOnlyMount | kNoDevices, false)) {
        return failed("isolating: changing the pod's own mounts");
      }
    }
    return done();
  }

  Step apply(const MountRule& rule, UniqueFd* tree) {
    if (rule.path == "/") return done();
    if (rule.operation == MountOperation::kDevices) {
      if (const Step s = devices_.mount(); s.failed()) return s;
      ours_.push_back(rule.path);
      return done();
    }
    UniqueFd place = open_place(rule.path);
    if (!place && errno == ENOENT) place = make_place(rule, *tree);
    if (!place) return failed("isolating: finding what a rule names");
    switch (rule.operation) {
      case MountOperation::kHide:
        return hide(rule.path, place);
      case MountOperation::kPin:
        *tree = clone_place(place);
        break;
      default:
        break;
    }
    return *tree && mount_tree(*tree, place) ? done() : failed("isolating: mounting what a rule names");
  }

  // Below something that is ours there is nothing yet.
  UniqueFd make_place(const MountRule& made, const UniqueFd& tree) {
    const std::string& path = made.path;
    std::string covering;
    for (const MountRule& rule : plan_.mounts) {
      const bool ours = rule.operation == MountOperation::kHide || rule.operation == MountOperation::kOwn ||
                        rule.operation == MountOperation::kDevices;
      if (ours && is_below(path, rule.path) && rule.path.size() > covering.size()) covering = rule.path;
    }
    struct stat st {};
    const bool pin = made.operation == MountOperation::kPin;
    if (covering.empty() || (!pin && fstat(tree.get(), &st) != 0)) {
      errno = ENOENT;
      return {};
    }
    // Deeper things are found through what hides, which still cannot be listed.
    struct stat top {};
    if (stat(covering.c_str(), &top) == 0 && (top.st_mode & 0777) == 0) chmod(covering.c_str(), 0111);
    for (size_t slash = path.find('/', covering.size() + 1); slash != std::string::npos;
         slash = path.find('/', slash + 1)) {
      mkdir(path.substr(0, slash).c_str(), 0755);
    }
    if (pin || S_ISDIR(st.st_mode)) {
      mkdir(path.c_str(), 0755);
    } else {
      UniqueFd file(open(path.c_str(), O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC | O_NOFOLLOW, 0644));
    }
    return open_place(path);
  }

  Step hide(const std::string& path, const UniqueFd& place) {
    constexpr const char* kWhat = "isolating: hiding what a rule names";
    struct stat st {};
    if (fstat(place.get(), &st) != 0) return failed(kWhat);
    if (S_ISDIR(st.st_mode)) {
      if (!mount_empty(path, 0)) return failed(kWhat);
      ours_.push_back(path);
      return done();
    }
    // A file without content, of a file system that nobody sees otherwise: mounted on /proc while it is made.
    constexpr const char* kStage = "/proc";
    if (!mount_empty(kStage, 0)) return failed(kWhat);
    UniqueFd file(open("/proc/empty", O_CREAT | O_EXCL | O_RDONLY | O_CLOEXEC, 0));
    UniqueFd tree = file ? clone_tree(AT_FDCWD, "/proc/empty") : UniqueFd();
    const int error = errno;
    if (umount2(kStage, MNT_DETACH) != 0) return failed(kWhat);
    errno = error;
    return tree && change_mount(tree, kReadOnlyMount, 0, false) && mount_tree(tree, place) ? done()
                                                                                           : failed(kWhat);
  }

  static bool mount_empty(const std::string& path, unsigned mode) {
    const std::string options = "size=64k,nr_inodes=1k,mode=" + std::to_string(mode);
    return mount("virt-run", path.c_str(), "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, options.c_str()) == 0;
  }

  const LaunchPlan& plan_;
  const bool no_devices_;
  std::vector<UniqueFd> trees_;  // one a rule, where it mounts something
  std::vector<std::string> ours_;
  OwnDevices devices_;
};

}  // namespace

Step isolate(const LaunchPlan& plan) {
  if ((plan.flags & protocol::kPlanNoNetwork) != 0) {
    if (const Step s = raise_loopback(); s.failed()) return s;
  }
  return Isolation(plan).run();
}

}  // namespace virt::init
