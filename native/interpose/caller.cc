#include "interpose/caller.h"

#include <fcntl.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "interpose/calls.h"
#include "interpose/path.h"
#include "sys/fd.h"

namespace virt {
namespace {

constexpr size_t kMostProcText = 4096;

// A path in the caller's memory. Empty if there is none, or it is too long.
bool read_path(pid_t tid, uint64_t from, std::string* path) {
  constexpr uint64_t kPage = 4096;
  path->clear();
  while (path->size() < PATH_MAX) {
    char chunk[512];
    // Never across the end of a page: what follows may not be there.
    const size_t want = std::min<uint64_t>(sizeof chunk, kPage - from % kPage);
    const size_t got = read_memory(tid, from, chunk, want);
    if (got == 0) return false;
    const size_t length = strnlen(chunk, got);
    path->append(chunk, length);
    if (length < got) return true;
    from += got;
  }
  return false;
}

}  // namespace

std::string proc_file(pid_t tid, const char* name) { return "/proc/" + std::to_string(tid) + "/" + name; }

std::string read_start(const std::string& path) {
  const UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  char text[kMostProcText];
  const ssize_t n = fd ? read(fd.get(), text, sizeof text) : -1;
  return n > 0 ? std::string(text, static_cast<size_t>(n)) : std::string();
}

pid_t number_after(const std::string& text, const char* word) {
  const size_t at = text.find(word);
  return at == std::string::npos ? 0 : static_cast<pid_t>(std::atoi(text.c_str() + at + std::strlen(word)));
}

// What a pidfd's fdinfo says depends on whose /proc it is read through (pidfd_open(2)).
pid_t pid_seen_by(int proc, int process) {
  if (proc < 0 || process < 0) return 0;
  char name[64], text[512];
  std::snprintf(name, sizeof name, "self/fdinfo/%d", process);
  const UniqueFd file(openat(proc, name, O_RDONLY | O_CLOEXEC));
  const ssize_t n = file ? read(file.get(), text, sizeof text) : -1;
  if (n <= 0) return 0;
  return std::max(0, number_after(std::string(text, static_cast<size_t>(n)), "\nPid:"));
}

size_t read_memory(pid_t tid, uint64_t from, void* to, size_t size) {
  const iovec local{to, size};
  const iovec remote{reinterpret_cast<void*>(from),
                     size};  // NOLINT(performance-no-int-to-ptr): never followed here
  const ssize_t n = process_vm_readv(tid, &local, 1, &remote, 1, 0);
  return n > 0 ? static_cast<size_t>(n) : 0;
}

std::string path_of_call(pid_t tid, const std::string& root, const InterposedCall& call, const uint64_t* args,
                         int directory, int path_argument) {
  std::string path;
  if (path_argument >= 0 && !read_path(tid, args[path_argument], &path)) return {};
  std::string base;
  if (path.empty() || path[0] != '/') {
    const int number = path_argument < 0 ? call.descriptor : directory;
    const int fd = number < 0 ? AT_FDCWD : static_cast<int>(args[number]);
    base = read_link_of(fd == AT_FDCWD ? proc_file(tid, "cwd") : proc_file(tid, "fd/") + std::to_string(fd));
    if (base.empty() || base[0] != '/' || is_gone(base)) return {};
    if (path_argument >= 0 && path.empty() && call.flags >= 0 && (args[call.flags] & AT_EMPTY_PATH) == 0)
      return {};
  }
  std::string whole = path.empty() ? base : path[0] == '/' ? path : base + "/" + path;
  // What /proc shows of a directory is as we see it already; a path in the program's mouth begins at its root.
  if (!path.empty() && path[0] == '/' && root.size() > 1) whole = root + whole;
  return whole;
}

}  // namespace virt
