// The vDSO (vdso(7)): a small ELF object the kernel maps into every process. We use it for three things: the
// unused bytes behind its code are where an agent gets its first foothold; its functions are compared between
// kernels; and an old one's entry points are patched to jump to the new kernel's. The image is parsed with
// bounds, as any input.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace virt {

// Offset of the first byte behind everything that is loaded, 16-aligned, and how many bytes are free from
// there to the end of the image. Throws BadValue if this is no vDSO.
std::pair<uint64_t, uint64_t> vdso_tail(std::string_view image);

// Exported functions: name → offset.
std::map<std::string, uint64_t> vdso_functions(std::string_view image);

// True if code and symbols are the same, whatever lies in the unused tail.
bool same_vdso(std::string_view a, std::string_view b);

// Bytes to write into the old image at its old place so that each of its functions jumps to the one of the
// same name in the new image at `new_base`; a function the new one lacks answers by a plain system call
// (clock_gettime and its kind) or ENOSYS.
struct VdsoPatch {
  uint64_t offset;
  std::string bytes;
};
std::vector<VdsoPatch> redirect_vdso(std::string_view old_image, std::string_view new_image,
                                     uint64_t new_base);

}  // namespace virt
