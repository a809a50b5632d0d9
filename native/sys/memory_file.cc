#include "sys/memory_file.h"

#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

namespace virt {

int make_memory_file(const char* name, std::string_view bytes, UniqueFd* file) {
  file->reset(memfd_create(name, MFD_CLOEXEC));
  if (!*file) return errno;
  // One write(2) takes 2 GiB at most.
  while (!bytes.empty()) {
    const ssize_t n = write(file->get(), bytes.data(), bytes.size());
    if (n <= 0) return n < 0 ? errno : EIO;
    bytes.remove_prefix(static_cast<size_t>(n));
  }
  return 0;
}

int read_memory_file(int file, size_t most, std::string* bytes) {
  struct stat st {};
  if (fstat(file, &st) != 0) return errno;
  if (st.st_size < 0 || static_cast<size_t>(st.st_size) > most) return EFBIG;
  bytes->resize(static_cast<size_t>(st.st_size));
  for (size_t done = 0; done < bytes->size();) {
    const ssize_t n = pread(file, bytes->data() + done, bytes->size() - done, static_cast<off_t>(done));
    if (n <= 0) return n < 0 ? errno : EIO;
    done += static_cast<size_t>(n);
  }
  return 0;
}

}  // namespace virt
