// The journal: a pod's effects as JSON lines in its state directory, `journal`, and `journal.1` before it when it
// grew too large. No exceptions: used by virt-init.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

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
  // Any thread. `order` is that of the call; lines of one order stay as they came.
  void append(uint64_t order, const JournalLine& line);
  // Writes what waits up to an order, by order. One thread at a time. False if a line could not be written; the next that
  // can says how many were lost.
  bool flush(uint64_t until);
  [[nodiscard]] bool waits();
  // Whether nothing was lost since the last line that could be written. The thread that flushes.
  [[nodiscard]] bool is_whole() const { return lost_ == 0; }

 private:
  struct Line {
    uint64_t order;
    std::string text;
  };

  void open_file();
  bool begin_next_file();
  bool write_out(const std::string& text);

  int dir_;
  UniqueFd file_;
  off_t size_ = 0;
  uint64_t lost_ = 0;
  std::mutex mutex_;
  std::vector<Line> waiting_;
};

}  // namespace virt
