#include "interpose/journal.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <ctime>

namespace virt {
namespace {

constexpr off_t kMostBytes = 64 << 20;  // of each of the two files

// The length of the UTF-8 sequence at the front, 0 if it is none.
size_t sequence(std::string_view s) {
  const auto at = [&](size_t i) { return static_cast<unsigned char>(s[i]); };
  const unsigned char first = at(0);
  const size_t size = first < 0x80                    ? 1
                      : first >= 0xc2 && first < 0xe0 ? 2
                      : (first & 0xf0) == 0xe0        ? 3
                      : first >= 0xf0 && first < 0xf5 ? 4
                                                      : 0;
  if (size == 0 || size > s.size()) return 0;
  for (size_t i = 1; i < size; ++i) {
    if ((at(i) & 0xc0) != 0x80) return 0;
  }
  // Overlong forms, surrogates and what lies beyond the last code point.
  if (first == 0xe0 && at(1) < 0xa0) return 0;
  if (first == 0xed && at(1) >= 0xa0) return 0;
  if (first == 0xf0 && at(1) < 0x90) return 0;
  if (first == 0xf4 && at(1) >= 0x90) return 0;
  return size;
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
    const size_t size = sequence(value);
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

void Journal::append(const JournalLine& line) {
  const std::string text = line.done();
  const std::lock_guard lock(mutex_);
  waiting_ += text;
}

void Journal::flush() {
  std::string lines;
  {
    const std::lock_guard lock(mutex_);
    lines.swap(waiting_);
  }
  if (lines.empty()) return;
  if (!file_) open_file();
  if (size_ > kMostBytes) {
    renameat(dir_, "journal", dir_, "journal.1");
    file_.reset(openat(dir_, "journal", O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600));
    size_ = 0;
  }
  for (std::string_view rest = lines; file_ && !rest.empty();) {
    const ssize_t n = write(file_.get(), rest.data(), rest.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) {
      // A full disk loses lines, not the pod; and never half a line, to which the next would be added.
      if (ftruncate(file_.get(), size_) != 0) file_.reset();
      break;
    }
    rest.remove_prefix(static_cast<size_t>(n));
    if (rest.empty()) size_ += static_cast<off_t>(lines.size());
  }
}

}  // namespace virt
