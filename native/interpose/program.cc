#include "interpose/program.h"

#include <elf.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>

#include "sys/fd.h"

namespace virt {

bool is_32bit_program(const std::string& path) {
  const UniqueFd fd(open(path.c_str(), O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
  struct stat st {};
  if (!fd || fstat(fd.get(), &st) != 0 || !S_ISREG(st.st_mode)) return false;
  Elf32_Ehdr header{};
  if (read(fd.get(), &header, sizeof header) < static_cast<ssize_t>(sizeof header)) return false;
  if (std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0) return false;
  return header.e_machine == EM_386 ||
         (header.e_machine == EM_X86_64 && header.e_ident[EI_CLASS] == ELFCLASS32);
}

}  // namespace virt
