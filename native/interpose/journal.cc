#include "interpose/journal.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <ctime>
#include <iterator>
#include <utility>

#include "sys/clocks.h"
#include "sys/utf8.h"

namespace virt {
namespace {

constexpr off_t kMostBytes = 64 << 20;  // of each of the two files

// An effect of virt-init itself.
std::string lost_line(const char* why, uint64_t lines) {
  JournalLine line;
  line.text("time", journal_time(realtime_ns()))
      .number("pid", 1)
      .text("program", "virt-init")
      .text("call", "write");
  line.text("kind", "lost").text("result", why);
  if (lines > 0) line.number("lines", static_cast<int64_t>(lines));
  return line.done();
}

}  // namespace

JournalLine::JournalLine() : line_("{") {}

void JournalLine::member(std::string_view name) {
  if (line_.size() > 1) line_ += ',';
  line_ += '"';
  line_ += name;
  line_ += "\":";
}

JournalLine& JournalLine::text(std::string_view name, std::string_view value) {
  member(name);
  line_ += '"';
  while (!value.empty()) {
    const size_t size = utf8_sequence(value);
    const char c = value[0];
    if (size == 0) {
      line_ += "\xef\xbf\xbd";  // a name need not be text: the replacement character stands for such a byte
    } else if (c == '"' || c == '\\') {
      line_ += '\\';
      line_ += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      char escape[8];
      std::snprintf(escape, sizeof escape, "\\u%04x", static_cast<unsigned>(c));
      line_ += escape;
    } else {
      line_ += value.substr(0, size);
    }
    value.remove_prefix(size == 0 ? 1 : size);
  }
  line_ += '"';
  return *this;
}

JournalLine& JournalLine::number(std::string_view name, int64_t value) {
  member(name);
  line_ += std::to_string(value);
  return *this;
}

std::string journal_time(int64_t realtime_ns) {
  const auto seconds = static_cast<time_t>(realtime_ns / 1'000'000'000);
  tm t{};
  gmtime_r(&seconds, &t);
  char text[40];
  const size_t n = std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &t);
  std::snprintf(text + n, sizeof text - n, ".%03dZ", static_cast<int>(realtime_ns / 1'000'000 % 1000));
  return text;
}

Journal::Journal(int state_dir) : dir_(state_dir) {}

void Journal::open_file() {
  file_.reset(openat(dir_, "journal", O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600));
  struct stat st {};
  if (file_ && fstat(file_.get(), &st) == 0) size_ = st.st_size;
}

// True if what was in the oldest is gone.
bool Journal::begin_next_file() {
  const bool lost = faccessat(dir_, "journal.1", F_OK, 0) == 0;
  renameat(dir_, "journal", dir_, "journal.1");
  file_.reset();
  size_ = 0;
  open_file();
  return lost;
}

void Journal::append(uint64_t order, const JournalLine& line) {
  std::string text = line.done();
  const std::lock_guard lock(mutex_);
  waiting_.push_back({order, std::move(text)});
}

bool Journal::waits() {
  const std::lock_guard lock(mutex_);
  return !waiting_.empty();
}

bool Journal::flush(uint64_t until) {
  std::vector<Line> lines;
  {
    const std::lock_guard lock(mutex_);
    const auto later = std::stable_partition(waiting_.begin(), waiting_.end(),
                                             [until](const Line& line) { return line.order <= until; });
    lines.assign(std::move_iterator(waiting_.begin()), std::move_iterator(later));
    waiting_.erase(waiting_.begin(), later);
  }
  if (lines.empty()) return lost_ == 0;
  std::stable_sort(lines.begin(), lines.end(),
                   [](const Line& a, const Line& b) { return a.order < b.order; });
  if (!file_) open_file();
  std::string text;
  if (lost_ > 0) text = lost_line("ENOSPC", lost_);
  if (size_ > kMostBytes && begin_next_file()) text += lost_line("EFBIG", 0);
  for (const Line& line : lines) text += line.text;
  const bool written = write_out(text);
  lost_ = written ? 0 : lost_ + lines.size();
  return written;
}

// All of it, or nothing: never half a line, to which the next would be added.
bool Journal::write_out(const std::string& text) {
  for (std::string_view rest = text; !rest.empty();) {
    const ssize_t n = file_ ? write(file_.get(), rest.data(), rest.size()) : -1;
    if (n < 0 && file_ && errno == EINTR) continue;
    if (n <= 0) {
      if (file_ && ftruncate(file_.get(), size_) != 0) file_.reset();
      return false;
    }
    rest.remove_prefix(static_cast<size_t>(n));
  }
  size_ += static_cast<off_t>(text.size());
  return true;
}

}  // namespace virt
