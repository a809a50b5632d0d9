// The survey of System V IPC, which lives in the pod's namespace, not in a process: init looks it up from
// inside (sysvipc(7)).
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "checkpoint/capture.h"
#include "sys/proc.h"

namespace virt {

void Capture::survey_sysv() {
  const auto rows = [&](const char* what) {
    std::vector<std::vector<std::string>> out;
    UniqueFd fd = options_.open_in_pod(std::string("/proc/sysvipc/") + what, O_RDONLY);
    if (!fd) return out;
    std::string text(1 << 20, '\0');
    const ssize_t n = pread(fd.get(), text.data(), text.size(), 0);
    if (n < 0) throw OsError("pread", errno, "listing System V IPC");
    text.resize(static_cast<size_t>(n));
    size_t at = text.find('\n');  // a heading
    while (at != std::string::npos && at + 1 < text.size()) {
      const size_t end = text.find('\n', at + 1);
      std::vector<std::string> row;
      for (const auto word : split_words(std::string_view(text).substr(at + 1, end - at - 1)))
        row.emplace_back(word);
      if (!row.empty()) out.push_back(std::move(row));
      at = end;
    }
    return out;
  };
  const auto number = [](const std::string& word, int base = 10) {
    const bool negative = word.starts_with('-');  // a key is signed
    const auto n = parse_number(std::string_view(word).substr(negative ? 1 : 0), base);
    if (!n)
      throw OsError("ERR_SYSCALL", "read", EINVAL, "the kernel's list of System V IPC has '" + word + "'");
    return negative ? -static_cast<int64_t>(*n) : static_cast<int64_t>(*n);
  };
  const auto refuse = [&](const char* what, const std::string& id) {
    Blocker b;
    b.code = "ERR_UNSUPPORTED";
    b.reason = std::string(what) + " (id " + id + ")";
    b.hint = "not carried yet; let the program remove it first (ipcrm)";
    b.kind = "sysv-ipc";
    context_->block(std::move(b));
  };
  for (const auto& row : rows("sem")) refuse("a System V semaphore set", row.size() > 1 ? row[1] : "?");
  for (const auto& row : rows("msg")) refuse("a System V message queue", row.size() > 1 ? row[1] : "?");
  // key shmid perms size cpid lpid nattch uid gid cuid cgid …
  for (const auto& row : rows("shm")) {
    if (row.size() < 9) continue;
    MemoryObject* known = nullptr;
    for (MemoryObject& m : context_->memories()) {
      if (m.kind == "sysv" && m.record.get_int("shmid", -1) == number(row[1])) known = &m;
    }
    if (known == nullptr) {
      refuse("a System V shared memory segment that no process has attached", row[1]);
      continue;
    }
    known->size = static_cast<uint64_t>(number(row[3]));
    const int64_t mode = number(row[2], 8);
    known->record.set("key", number(row[0])).set("mode", mode & 0777).set("removed", (mode & 01000) != 0);
    known->record.set("uid", number(row[7])).set("gid", number(row[8]));
  }
}

}  // namespace virt
