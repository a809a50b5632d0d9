// The mount calls that are made with descriptors (open_tree(2), move_mount(2), mount_setattr(2)): what is mounted
// somewhere can be held, changed and put elsewhere before anybody sees it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "sys/fd.h"

namespace virt::init {

// What a path leads to, held without being opened (O_PATH). A symbolic link anywhere in it is ELOOP: rules are
// made for paths that had none, and a link that appears meanwhile must not lead a mount elsewhere (openat2(2), Linux
// 5.6). Closed on failure, errno says why.
UniqueFd open_place(const std::string& path);

// Whether a path lies in a directory, and is not itself it. Both absolute and plain.
bool is_below(std::string_view path, std::string_view directory);

// A copy of what is mounted at a path, on its own: it stays what it is whatever is mounted over the path, and can
// be mounted after the root it came from is gone (open_tree(2), Linux 5.2).
UniqueFd clone_tree(int directory, const std::string& path);
UniqueFd clone_place(const UniqueFd& place);

bool mount_tree(const UniqueFd& tree, const std::string& at);
bool mount_tree(const UniqueFd& tree, const UniqueFd& place);

// Attributes of a mount: MOUNT_ATTR_RDONLY and the like (mount_setattr(2), Linux 5.12).
inline constexpr uint64_t kReadOnlyMount = 1, kNoDevices = 4;

// Sets and clears attributes of the mount at a path or of a cloned tree, and of all below it if `recursive`: of all or
// of none. ENOSYS where the kernel has no such call.
bool change_mount(const std::string& path, uint64_t set, uint64_t clear, bool recursive);
bool change_mount(const UniqueFd& tree, uint64_t set, uint64_t clear, bool recursive);

// One thing in a directory that is about to be covered, cloned so that it can be mounted back afterwards.
struct Covered {
  std::string name, link;  // link: the target, if it is a symbolic link
  bool directory = false;
  UniqueFd fd;
};

bool list_covered(const std::string& base, std::vector<Covered>* out);

}  // namespace virt::init
