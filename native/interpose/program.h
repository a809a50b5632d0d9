// What is told of a program by its file. No exceptions: used by virt-init.
#pragma once

#include <string>

namespace virt {

// Whether it is a program of the 32-bit, or x32, kind of x86 (elf(5)), whose system calls are not interposed.
bool is_32bit_program(const std::string& path);

}  // namespace virt
