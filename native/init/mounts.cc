#include "init/mounts.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef OPEN_TREE_CLONE
#define OPEN_TREE_CLONE 1
#define OPEN_TREE_CLOEXEC O_CLOEXEC
#define MOVE_MOUNT_F_EMPTY_PATH 4
#define MOVE_MOUNT_T_EMPTY_PATH 0x40
#endif
#ifndef AT_RECURSIVE
#define AT_RECURSIVE 0x8000
#endif
#ifndef SYS_mount_setattr
#define SYS_mount_setattr 442
#endif

namespace virt::init {
namespace {

// struct mount_attr of mount_setattr(2), which not every libc has.
struct Attributes {
  uint64_t set, clear, propagation, user_namespace;
};

bool change(int directory, const char* path, unsigned flags, uint64_t set, uint64_t clear, bool recursive) {
  const Attributes a{set, clear, 0, 0};
  if (recursive) flags |= AT_RECURSIVE;
  return syscall(SYS_mount_setattr, directory, path, flags, &a, sizeof a) == 0;
}

}  // namespace

UniqueFd open_place(const std::string& path) {
  open_how how{};
  how.flags = O_PATH | O_CLOEXEC;
  how.resolve = RESOLVE_NO_SYMLINKS;
  return UniqueFd(static_cast<int>(syscall(SYS_openat2, AT_FDCWD, path.c_str(), &how, sizeof how)));
}

UniqueFd clone_tree(int directory, const std::string& path) {
  const unsigned flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE;
  return UniqueFd(static_cast<int>(syscall(SYS_open_tree, directory, path.c_str(), flags)));
}

UniqueFd clone_place(const UniqueFd& place) {
  const unsigned flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE | AT_EMPTY_PATH;
  return UniqueFd(static_cast<int>(syscall(SYS_open_tree, place.get(), "", flags)));
}

bool mount_tree(const UniqueFd& tree, const std::string& at) {
  return syscall(SYS_move_mount, tree.get(), "", AT_FDCWD, at.c_str(), MOVE_MOUNT_F_EMPTY_PATH) == 0;
}

bool mount_tree(const UniqueFd& tree, const UniqueFd& place) {
  return syscall(SYS_move_mount, tree.get(), "", place.get(), "",
                 MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) == 0;
}

bool change_mount(const std::string& path, uint64_t set, uint64_t clear, bool recursive) {
  return change(AT_FDCWD, path.c_str(), 0, set, clear, recursive);
}

bool change_mount(const UniqueFd& tree, uint64_t set, uint64_t clear, bool recursive) {
  return change(tree.get(), "", AT_EMPTY_PATH, set, clear, recursive);
}

}  // namespace virt::init
