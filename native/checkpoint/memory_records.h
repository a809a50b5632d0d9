// What the image says of mappings and pages, read for those who make them again.
#pragma once

#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/value.h"
#include "memory/page_store.h"
#include "memory/vma.h"
#include "sys/file.h"
#include "sys/proc.h"

namespace virt {

inline uint64_t start_of(const Value& m) { return static_cast<uint64_t>(m.at("start").as_int(0, INT64_MAX)); }
inline uint64_t end_of(const Value& m) { return static_cast<uint64_t>(m.at("end").as_int(0, INT64_MAX)); }

inline std::vector<PageRun> unpack_runs(const Value* list) {
  std::vector<PageRun> runs;
  if (list == nullptr) return runs;
  for (const Value& v : list->as_list()) {
    const auto& parts = v.as_list();
    if (parts.size() < 3) throw BadValue("a page run that is no triple");
    runs.push_back({static_cast<uint64_t>(parts[0].as_int(0, INT64_MAX)),
                    static_cast<uint64_t>(parts[1].as_int(1, INT64_MAX / 4096)),
                    static_cast<uint64_t>(parts[2].as_int(0, INT64_MAX / 4096)), parts.size() > 3});
  }
  return runs;
}

inline bool is_special(const Vma& v) { return v.path == "[vdso]" || v.path.starts_with("[vvar"); }

inline std::vector<Vma> mappings_of(pid_t host_pid) {
  return parse_smaps(read_file(proc_path(host_pid, "maps")));
}

inline std::string hex_range(uint64_t start, uint64_t end) {
  char text[40];
  std::snprintf(text, sizeof text, "%llx-%llx", static_cast<unsigned long long>(start),
                static_cast<unsigned long long>(end));
  return text;
}

}  // namespace virt
