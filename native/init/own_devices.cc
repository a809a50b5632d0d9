#include "init/own_devices.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "init/mounts.h"

namespace virt::init {

Step OwnDevices::take() {
  for (const char* name : {"null", "zero", "full", "random", "urandom", "tty", "pts"}) {
    UniqueFd tree = clone_tree(AT_FDCWD, std::string("/dev/") + name);
    if (tree) {
      nodes_.push_back({name, std::move(tree)});
    } else if (errno != ENOENT) {
      return failed("isolating: holding the devices");
    }
  }
  return done();
}

Step OwnDevices::mount() {
  constexpr const char* kWhat = "isolating: making /dev";
  if (::mount("virt-run", "/dev", "tmpfs", MS_NOSUID | MS_NOEXEC, "size=64k,nr_inodes=1k,mode=755") != 0) {
    return failed(kWhat);
  }
  for (const Node& node : nodes_) {
    const std::string path = "/dev/" + node.name;
    const int made = node.name == "pts" ? mkdir(path.c_str(), 0755) : mknod(path.c_str(), S_IFREG | 0644, 0);
    if (made != 0 || !mount_tree(node.tree, path)) return failed(kWhat);
  }
  constexpr const char* kLinks[][2] = {{"pts/ptmx", "ptmx"},
                                       {"/proc/self/fd", "fd"},
                                       {"/proc/self/fd/0", "stdin"},
                                       {"/proc/self/fd/1", "stdout"},
                                       {"/proc/self/fd/2", "stderr"}};
  for (const auto& [target, name] : kLinks) {
    if (symlink(target, (std::string("/dev/") + name).c_str()) != 0) return failed(kWhat);
  }
  // Of the pod's ipc namespace; not every kernel has it.
  if (mkdir("/dev/mqueue", 0755) != 0) return failed(kWhat);
  (void)::mount("mqueue", "/dev/mqueue", "mqueue", MS_NOSUID | MS_NODEV | MS_NOEXEC, nullptr);
  return done();
}

}  // namespace virt::init
