// The journal: a pod's effects as JSON lines in its state directory, `journal`, and `journal.1` before it when it
// grew too large. No exceptions: used by virt-init.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>

#include "sys/fd.h"

namespace virt {

// One line: members in the order they are added.
class JournalLine {
 public:
  JournalLine();
  JournalLine& text(std::string_view name, std::string_view value);
  JournalLine& number(std::string_view name, int64_t value);
  [[nodiscard]] std::string done() const { return line_ + "}\n"; }

 private:
  void member(std::string_view name);
  std::string line_;
};

// RFC 3339 with milliseconds, UTC.
std::string journal_time(int64_t realtime_ns);

class Journal {
 public:
  explicit Journal(int state_dir);
  // Any thread.
  void append(const JournalLine& line);
  // Writes what waits. One thread at a time.
  void flush();

 private:
  void open_file();

  int dir_;
  UniqueFd file_;
  off_t size_ = 0;
  std::mutex mutex_;
  std::string waiting_;
};

}  // namespace virt
