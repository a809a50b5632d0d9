#include "interpose/path.h"

#include <fcntl.h>
#include <unistd.h>

#include <climits>
#include <cstdlib>
#include <cstring>

#include "sys/fd.h"

namespace virt {
namespace {

bool below(const std::string& path, const char* directory) {
  const size_t n = std::strlen(directory);
  return path.compare(0, n, directory) == 0 && (path.size() == n || path[n] == '/');
}

}  // namespace

std::string read_link_of(const std::string& path) {
  char text[PATH_MAX];
  const ssize_t n = readlink(path.c_str(), text, sizeof text);
  return n > 0 ? std::string(text, static_cast<size_t>(n)) : std::string();
}

bool is_gone(const std::string& path) { return path.ends_with(" (deleted)"); }

bool is_made_up(const std::string& path) {
  return below(path, "/proc") || below(path, "/sys") || (below(path, "/dev") && !below(path, "/dev/shm"));
}

std::string canonical_path(const std::string& path) {
  const size_t end = path.find_last_not_of('/');
  if (end == std::string::npos) return "/";
  const size_t slash = path.rfind('/', end);
  const std::string last = path.substr(slash + 1, end - slash);
  if (last == "." || last == "..") {
    char* whole = realpath(path.c_str(), nullptr);
    std::string out = whole == nullptr ? path : whole;
    std::free(whole);
    return out;
  }
  const UniqueFd parent(
      open(slash == 0 ? "/" : path.substr(0, slash).c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!parent) return path;
  const std::string directory = read_link_of("/proc/self/fd/" + std::to_string(parent.get()));
  if (directory.empty() || is_gone(directory)) return path;
  return (directory == "/" ? "" : directory) + "/" + last;
}

std::string resolved_path(const std::string& path, bool follow) {
  char* whole = follow ? realpath(path.c_str(), nullptr) : nullptr;
  if (whole == nullptr) return canonical_path(path);
  std::string out = whole;
  std::free(whole);
  return out;
}

}  // namespace virt
