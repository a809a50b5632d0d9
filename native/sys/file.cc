#include "sys/file.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <memory>

#include "base/error.h"

namespace virt {
namespace {

bool gone(int error) { return error == ENOENT || error == ESRCH; }

}  // namespace

UniqueFd open_file(const std::string& path, int flags, unsigned mode) {
  UniqueFd fd(open(path.c_str(), flags | O_CLOEXEC, mode));
  if (!fd) throw OsError("open", errno, "opening a file").at_path(path);
  return fd;
}

std::optional<std::string> try_read_file(const std::string& path, size_t limit) {
  UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) {
    if (gone(errno)) return std::nullopt;
    throw OsError("open", errno, "opening a file").at_path(path);
  }
  std::string text;
  size_t size = 0;
  text.resize(4096);
  for (;;) {
    if (size == text.size()) text.resize(std::min(limit + 1, text.size() * 2));
    const ssize_t n = read(fd.get(), text.data() + size, text.size() - size);
    if (n < 0) {
      if (errno == EINTR) continue;
      if (gone(errno)) return std::nullopt;
      throw OsError("read", errno, "reading a file").at_path(path);
    }
    if (n == 0) break;
    size += static_cast<size_t>(n);
    if (size > limit) throw OsError("read", EFBIG, "reading a file").at_path(path);
  }
  text.resize(size);
  return text;
}

std::string read_file(const std::string& path, size_t limit) {
  auto text = try_read_file(path, limit);
  if (!text) throw OsError("open", ENOENT, "opening a file").at_path(path);
  return *std::move(text);
}

std::optional<std::string> try_read_link(const std::string& path) {
  std::string target(4096, '\0');  // PATH_MAX: the kernel gives no longer one
  const ssize_t n = readlink(path.c_str(), target.data(), target.size());
  if (n < 0) {
    if (gone(errno)) return std::nullopt;
    throw OsError("readlink", errno, "reading a link").at_path(path);
  }
  target.resize(static_cast<size_t>(n));
  return target;
}

std::string read_link(const std::string& path) {
  auto target = try_read_link(path);
  if (!target) throw OsError("readlink", ENOENT, "reading a link").at_path(path);
  return *std::move(target);
}

std::optional<std::vector<std::string>> try_list_names(const std::string& path) {
  std::unique_ptr<DIR, int (*)(DIR*)> dir(opendir(path.c_str()), &closedir);
  if (!dir) {
    if (gone(errno)) return std::nullopt;
    throw OsError("opendir", errno, "listing a directory").at_path(path);
  }
  std::vector<std::string> names;
  for (;;) {
    errno = 0;
    const dirent* entry = readdir(dir.get());
    if (entry == nullptr) {
      if (gone(errno)) return std::nullopt;
      if (errno != 0) throw OsError("getdents64", errno, "listing a directory").at_path(path);
      return names;
    }
    const std::string name = entry->d_name;
    if (name != "." && name != "..") names.push_back(name);
  }
}

std::optional<std::vector<int>> try_list_numbers(const std::string& path) {
  const auto names = try_list_names(path);
  if (!names) return std::nullopt;
  std::vector<int> numbers;
  for (const std::string& name : *names) {
    int n = 0;
    const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), n);
    if (error == std::errc() && end == name.data() + name.size()) numbers.push_back(n);
  }
  std::sort(numbers.begin(), numbers.end());
  return numbers;
}

void read_exactly(int fd, void* data, size_t size, uint64_t offset, const char* doing) {
  char* p = static_cast<char*>(data);
  while (size > 0) {
    const ssize_t n = pread(fd, p, size, static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw OsError("pread", errno, doing);
    if (n == 0) throw OsError("pread", ENODATA, doing);
    p += n;
    size -= static_cast<size_t>(n);
    offset += static_cast<uint64_t>(n);
  }
}

void write_exactly(int fd, const void* data, size_t size, uint64_t offset, const char* doing) {
  const char* p = static_cast<const char*>(data);
  while (size > 0) {
    const ssize_t n = pwrite(fd, p, size, static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw OsError("pwrite", errno, doing);
    p += n;
    size -= static_cast<size_t>(n);
    offset += static_cast<uint64_t>(n);
  }
}

void write_file(const std::string& path, std::string_view text) {
  UniqueFd fd = open_file(path, O_WRONLY);
  const ssize_t n = write(fd.get(), text.data(), text.size());
  if (n != static_cast<ssize_t>(text.size())) {
    throw OsError("write", n < 0 ? errno : EIO, "writing a file").at_path(path);
  }
}

}  // namespace virt
