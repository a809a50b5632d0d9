// The mappings of one process as /proc/PID/smaps tells them, proc(5). Flags are the two-letter VmFlags.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace virt {

struct Vma {
  uint64_t start = 0, end = 0, offset = 0;
  int protection = 0;  // PROT_*
  bool shared = false;
  unsigned major = 0, minor = 0;
  uint64_t inode = 0;
  std::string path;  // "" for anonymous; "[heap]", "[stack]", "/usr/…", with " (deleted)" as shown
  std::vector<std::string> flags;  // "rd", "wr", "mr", "lo", …
  uint64_t swap_bytes = 0, huge_bytes = 0;
  unsigned protection_key = 0;

  [[nodiscard]] uint64_t size() const { return end - start; }
  [[nodiscard]] bool has(std::string_view flag) const;
  // By a file, memfd or shared memory; a System V segment with id 0 has inode 0, too.
  [[nodiscard]] bool backed() const { return inode != 0 || path.starts_with('/'); }
};

// Throws BadValue on text it cannot read. Ranges come back ascending and do not overlap.
std::vector<Vma> parse_smaps(std::string_view text);

// Undoes the kernel's \012 for a newline in a path.
std::string unescape_path(std::string_view path);

}  // namespace virt
