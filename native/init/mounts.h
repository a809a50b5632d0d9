// Copies of mounts, and directories that are covered with something else while what was in them is mounted back.
#pragma once

#include <string>
#include <vector>

#include "sys/fd.h"

namespace virt::init {

// A copy of what is mounted at a path, on its own: it stays what it is whatever is mounted over the path, and can
// be mounted after the root it came from is gone (open_tree(2), Linux 5.2).
UniqueFd clone_tree(int directory, const std::string& path);
bool mount_tree(const UniqueFd& tree, const std::string& at);

// One thing in a directory that is about to be covered, cloned so that it can be mounted back afterwards.
struct Covered {
  std::string name, link;  // link: the target, if it is a symbolic link
  bool directory = false;
  UniqueFd fd;
};

bool list_covered(const std::string& base, std::vector<Covered>* out);

}  // namespace virt::init
