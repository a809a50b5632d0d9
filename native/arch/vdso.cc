#include "arch/vdso.h"

#include <elf.h>
#include <sys/syscall.h>

#include <cstring>
#include <optional>

#include "base/value.h"

namespace virt {
namespace {

template <typename T>
T object_at(std::string_view image, uint64_t offset) {
  if (offset > image.size() || sizeof(T) > image.size() - offset) throw BadValue("a vDSO that is cut short");
  T object;
  std::memcpy(&object, image.data() + offset, sizeof object);
  return object;
}

Elf64_Ehdr header_of(std::string_view image) {
  const auto h = object_at<Elf64_Ehdr>(image, 0);
  if (std::memcmp(h.e_ident, ELFMAG, SELFMAG) != 0 || h.e_ident[EI_CLASS] != ELFCLASS64 ||
      h.e_phentsize != sizeof(Elf64_Phdr) || h.e_phnum > 32) {
    throw BadValue("a vDSO that is no 64-bit ELF object");
  }
  return h;
}

template <typename F>
void each_segment(std::string_view image, F f) {
  const Elf64_Ehdr h = header_of(image);
  for (unsigned i = 0; i < h.e_phnum; ++i)
    f(object_at<Elf64_Phdr>(image, h.e_phoff + i * sizeof(Elf64_Phdr)));
}

uint64_t loaded_end(std::string_view image) {
  uint64_t end = 0;
  each_segment(image, [&](const Elf64_Phdr& p) {
    if (p.p_type == PT_LOAD && p.p_offset <= image.size() && p.p_filesz <= image.size() - p.p_offset) {
      end = std::max(end, p.p_offset + p.p_filesz);
    }
  });
  if (end == 0) throw BadValue("a vDSO without a segment");
  return end;
}

// The system call that does what a function of the vDSO does.
std::optional<uint32_t> fallback_call(const std::string& name) {
  static const std::map<std::string, uint32_t> kCalls = {{"clock_gettime", SYS_clock_gettime},
                                                         {"gettimeofday", SYS_gettimeofday},
                                                         {"time", SYS_time},
                                                         {"getcpu", SYS_getcpu},
                                                         {"clock_getres", SYS_clock_getres},
                                                         {"getrandom", SYS_getrandom}};
  const std::string plain = name.starts_with("__vdso_") ? name.substr(7) : name;
  const auto found = kCalls.find(plain);
  return found == kCalls.end() ? std::nullopt : std::optional(found->second);
}

}  // namespace

std::pair<uint64_t, uint64_t> vdso_tail(std::string_view image) {
  const uint64_t start = (loaded_end(image) + 15) / 16 * 16;
  return {start, start < image.size() ? image.size() - start : 0};
}

std::map<std::string, uint64_t> vdso_functions(std::string_view image) {
  uint64_t dynamic = 0, dynamic_size = 0, symbols = 0, strings = 0, strings_size = 0, hash = 0;
  each_segment(image, [&](const Elf64_Phdr& p) {
    if (p.p_type == PT_DYNAMIC) {
      dynamic = p.p_offset;
      dynamic_size = p.p_filesz;
    }
  });
  for (uint64_t at = 0; at + sizeof(Elf64_Dyn) <= dynamic_size; at += sizeof(Elf64_Dyn)) {
    const auto d = object_at<Elf64_Dyn>(image, dynamic + at);
    if (d.d_tag == DT_NULL) break;
    if (d.d_tag == DT_SYMTAB) symbols = d.d_un.d_ptr;
    if (d.d_tag == DT_STRTAB) strings = d.d_un.d_ptr;
    if (d.d_tag == DT_STRSZ) strings_size = d.d_un.d_val;
    if (d.d_tag == DT_HASH) hash = d.d_un.d_ptr;
  }
  std::map<std::string, uint64_t> out;
  if (symbols == 0 || strings == 0) return out;
  // The number of symbols: from DT_HASH (nchain); without one the string table follows the symbols.
  uint64_t count = strings > symbols ? (strings - symbols) / sizeof(Elf64_Sym) : 0;
  if (hash != 0) count = object_at<uint32_t>(image, hash + 4);
  if (count > 1024) throw BadValue("a vDSO with too many symbols");
  for (uint64_t i = 0; i < count; ++i) {
    const auto s = object_at<Elf64_Sym>(image, symbols + i * sizeof(Elf64_Sym));
    if (ELF64_ST_TYPE(s.st_info) != STT_FUNC || s.st_value == 0 || s.st_value >= image.size()) continue;
    if (s.st_name >= strings_size || strings > image.size() || strings_size > image.size() - strings) {
      throw BadValue("a vDSO with a bad symbol name");
    }
    const std::string_view rest = image.substr(strings + s.st_name, strings_size - s.st_name);
    out[std::string(rest.substr(0, rest.find('\0')))] = s.st_value;
  }
  return out;
}

bool same_vdso(std::string_view a, std::string_view b) {
  const uint64_t end = loaded_end(a);
  return end == loaded_end(b) && a.size() == b.size() && a.substr(0, end) == b.substr(0, end);
}

std::vector<VdsoPatch> redirect_vdso(std::string_view old_image, std::string_view new_image,
                                     uint64_t new_base) {
  const auto new_functions = vdso_functions(new_image);
  std::vector<VdsoPatch> patches;
  for (const auto& [name, offset] : vdso_functions(old_image)) {
    std::string code;
    const auto target = new_functions.find(name);
    if (target != new_functions.end()) {
      // movabs $address, %rax; jmp *%rax — the ABI leaves rax free at a function's entry.
      const uint64_t address = new_base + target->second;
      code = "\x48\xb8";
      code.append(reinterpret_cast<const char*>(&address), sizeof address);
      code += "\xff\xe0";
    } else {
      // mov $number, %eax; syscall; ret — a call that does not exist gives ENOSYS.
      const uint32_t number = fallback_call(name).value_or(~0U);
      code = "\xb8";
      code.append(reinterpret_cast<const char*>(&number), sizeof number);
      code += "\x0f\x05\xc3";
    }
    if (code.size() > old_image.size() - offset) throw BadValue("a vDSO function at the very end");
    patches.push_back({offset, code});
  }
  return patches;
}

}  // namespace virt
