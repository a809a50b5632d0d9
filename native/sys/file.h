// Whole small files, directories and links, read with a limit. Throws OsError; the try_ forms give nothing
// when the thing, or the process it belongs to, is gone (ENOENT, ESRCH).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "sys/fd.h"

namespace virt {

std::optional<std::string> try_read_file(const std::string& path, size_t limit = size_t{64} << 20);
std::string read_file(const std::string& path, size_t limit = size_t{64} << 20);
std::optional<std::string> try_read_link(const std::string& path);
std::string read_link(const std::string& path);

// The names in a directory, without "." and "..". Numbers only for list_numbers, ascending.
std::optional<std::vector<std::string>> try_list_names(const std::string& path);
std::optional<std::vector<int>> try_list_numbers(const std::string& path);

UniqueFd open_file(const std::string& path, int flags, unsigned mode = 0);

void read_exactly(int fd, void* data, size_t size, uint64_t offset, const char* doing);
void write_exactly(int fd, const void* data, size_t size, uint64_t offset, const char* doing);
void write_file(const std::string& path, std::string_view text);

}  // namespace virt
