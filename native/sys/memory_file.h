// Bytes handed to another process as a file in memory (memfd_create(2)). No exceptions: used by virt-init, to which the file may be
// anything.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "sys/fd.h"

namespace virt {

// 0 or errno: ENOMEM, EMFILE.
int make_memory_file(const char* name, std::string_view bytes, UniqueFd* file);

// The whole of it. 0 or errno: EFBIG if it has more than `most` bytes, EIO if it changes meanwhile.
int read_memory_file(int file, size_t most, std::string* bytes);

}  // namespace virt
