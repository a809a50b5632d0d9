#include "resources/file_locks.h"

#include <fcntl.h>
#include <sys/file.h>

#include <cerrno>

#include "base/error.h"

namespace virt {
namespace {

// "1: POSIX  ADVISORY  WRITE 1234 fe:00:5678 1073741826 1073742335"
struct Lock {
  std::string_view kind, mode;
  int64_t start = 0, length = 0;  // 0: to the end
};

bool parse(std::string_view line, Lock* lock) {
  const auto words = split_words(line);
  if (words.size() < 8) return false;
  lock->kind = words[1];
  lock->mode = words[3];
  const auto start = parse_number(words[6]);
  const auto end = words[7] == "EOF" ? std::optional<uint64_t>(0) : parse_number(words[7]);
  if (!start || !end) return false;
  lock->start = static_cast<int64_t>(*start);
  lock->length = words[7] == "EOF" ? 0 : static_cast<int64_t>(*end - *start + 1);
  return true;
}

Value describe(const Lock& lock) {
  Value v = Value::map();
  v.set("kind", lock.kind == "FLOCK" ? "flock" : lock.kind == "POSIX" ? "posix" : "ofd");
  v.set("exclusive", lock.mode == "WRITE").set("start", lock.start).set("length", lock.length);
  return v;
}

}  // namespace

std::vector<Value> capture_locks(Handle& handle, const HandleUse& use, const ProcFields& fdinfo,
                                 CaptureContext& context) {
  std::vector<Value> of_process;
  for (const std::string_view line : fdinfo.all("lock")) {
    Lock lock;
    if (!parse(line, &lock)) throw BadValue("unreadable lock in fdinfo");
    if (lock.kind == "POSIX") {
      Value v = describe(lock);
      v.set("fd", use.fd);
      of_process.push_back(std::move(v));
    } else if (lock.kind == "FLOCK" || lock.kind == "OFDLCK") {
      // Every use of the handle shows the same lock.
      const bool first = !handle.uses.empty() && handle.uses[0].pid == use.pid && handle.uses[0].fd == use.fd;
      if (!first) continue;
      Value locks = handle.record.find("locks") != nullptr ? *handle.record.find("locks") : Value::list();
      locks.push(describe(lock));
      handle.record.set("locks", std::move(locks));
    } else {
      context.block(handle, "ERR_UNSUPPORTED", "a file lease (fcntl F_SETLEASE)",
                    "let the program give it up first");
    }
  }
  return of_process;
}

void restore_handle_locks(int fd, const Value& record) {
  const Value* locks = record.find("locks");
  if (locks == nullptr) return;
  for (const Value& lock : locks->as_list()) {
    const bool exclusive = lock.at("exclusive").as_bool();
    int result = 0;
    if (lock.at("kind").as_string() == "flock") {
      result = flock(fd, (exclusive ? LOCK_EX : LOCK_SH) | LOCK_NB);
    } else {
      struct flock range {};
      range.l_type = exclusive ? F_WRLCK : F_RDLCK;
      range.l_whence = SEEK_SET;
      range.l_start = lock.at("start").as_int(0, INT64_MAX);
      range.l_len = lock.at("length").as_int(0, INT64_MAX);
      result = fcntl(fd, F_OFD_SETLK, &range);
    }
    if (result != 0) {
      const bool held = errno == EAGAIN || errno == EACCES;
      throw OsError(held ? "ERR_LOCKED" : "ERR_SYSCALL", "flock", errno,
                    "taking a file lock again (another process may hold it now)");
    }
  }
}

}  // namespace virt
