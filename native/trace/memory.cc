#include "trace/memory.h"

#include <fcntl.h>
#include <sys/uio.h>

#include <cerrno>

#include "base/error.h"
#include "sys/file.h"
#include "sys/proc.h"

namespace virt {

RemoteMemory::RemoteMemory(pid_t host_pid)
    : pid_(host_pid), mem_(open(proc_path(host_pid, "mem").c_str(), O_RDWR | O_CLOEXEC)) {
  // EACCES: an undumpable process; what is readable can be read nevertheless.
  if (!mem_ && errno != EACCES)
    throw OsError("open", errno, "opening a process's memory").in_process(host_pid);
}

size_t RemoteMemory::try_read(RemoteAddress from, void* to, size_t size) const {
  iovec local{to, size};
  iovec remote{reinterpret_cast<void*>(from),
               size};  // NOLINT(performance-no-int-to-ptr): never followed here
  ssize_t n = process_vm_readv(pid_, &local, 1, &remote, 1, 0);
  if (n < 0 && errno == ESRCH) throw OsError("process_vm_readv", ESRCH, "reading memory").in_process(pid_);
  size_t done = n > 0 ? static_cast<size_t>(n) : 0;
  while (done < size) {
    n = pread(mem_.get(), static_cast<char*>(to) + done, size - done, static_cast<off_t>(from + done));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    done += static_cast<size_t>(n);
  }
  return done;
}

void RemoteMemory::read(RemoteAddress from, void* to, size_t size) const {
  if (try_read(from, to, size) != size)
    throw OsError("process_vm_readv", EFAULT, "reading memory").in_process(pid_);
}

std::string RemoteMemory::read_string(RemoteAddress from, size_t limit) const {
  std::string text(limit, '\0');
  text.resize(try_read(from, text.data(), limit));
  const size_t end = text.find('\0');
  if (end == std::string::npos)
    throw OsError("process_vm_readv", ENAMETOOLONG, "reading a string").in_process(pid_);
  text.resize(end);
  return text;
}

void RemoteMemory::write(RemoteAddress to, const void* from, size_t size) const {
  const char* p = static_cast<const char*>(from);
  while (size > 0) {
    const ssize_t n = pwrite(mem_.get(), p, size, static_cast<off_t>(to));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) throw OsError("pwrite", n < 0 ? errno : ESRCH, "writing memory").in_process(pid_);
    p += n;
    to += static_cast<size_t>(n);
    size -= static_cast<size_t>(n);
  }
}

}  // namespace virt
