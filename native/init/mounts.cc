#include "init/mounts.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <utility>

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

bool is_below(std::string_view path, std::string_view directory) {
  if (directory == "/") return path != "/";
  return path.size() > directory.size() && path.starts_with(directory) && path[directory.size()] == '/';
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

bool list_covered(const std::string& base, std::vector<Covered>* out) {
  UniqueFd list(open(base.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!list) return false;
  alignas(8) char buffer[32768];
  struct Entry {  // struct linux_dirent64, getdents(2)
    uint64_t ino;
    int64_t off;
    uint16_t length;
    uint8_t type;
    char name[1];
  };
  for (;;) {
    const ssize_t n = getdents64(list.get(), buffer, sizeof buffer);
    if (n <= 0) return n == 0;
    for (ssize_t at = 0; at < n;) {
      const auto* entry = reinterpret_cast<const Entry*>(buffer + at);
      at += entry->length;
      Covered c;
      c.name = entry->name;
      if (c.name == "." || c.name == "..") continue;
      struct stat st {};
      if (fstatat(list.get(), c.name.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0) continue;
      if (S_ISLNK(st.st_mode)) {
        char text[4096];
        const ssize_t size = readlinkat(list.get(), c.name.c_str(), text, sizeof text);
        if (size <= 0 || size == sizeof text) continue;
        c.link.assign(text, static_cast<size_t>(size));
      } else {
        c.directory = S_ISDIR(st.st_mode);
        c.fd = clone_tree(list.get(), c.name);
        if (!c.fd) return false;
      }
      out->push_back(std::move(c));
    }
  }
}

}  // namespace virt::init
