// The kernel's refusals, as exceptions. OsError says which system call failed, with which errno, and what was
// being done to which handle of which pid; each layer on the way up adds only what it alone knows.
//
// House rule: a process that died meanwhile is a value (std::nullopt, Gone), the kernel refusing is an
// OsError, a broken invariant is a Bug. Nothing here may be thrown across a thread's or a C callback's edge.
#pragma once

#include <cerrno>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace virt {

// Where something happened; empty fields are unknown, not zero.
struct Where {
  std::optional<int> pid;  // as the program sees it, inside its pod
  std::optional<int> fd;   // the number in that process
  std::string kind;        // kind of handle: "pipe", "vma", …
  std::string path;        // the path or address it has, if any
  std::string phase;       // "freeze", "survey", "read", "rebuild", …
};

class OsError : public std::runtime_error {
 public:
  // `call` is the system call's own name, `doing` a verb phrase: "reading the signal mask".
  OsError(std::string call, int error, std::string doing);
  // For refusals that have a permanent code of their own (errors.ts lists them), not just an errno.
  OsError(std::string code, std::string call, int error, std::string doing);

  [[nodiscard]] const char* what() const noexcept override { return text_.c_str(); }
  [[nodiscard]] int error() const { return error_; }
  [[nodiscard]] const std::string& call() const { return call_; }
  [[nodiscard]] const std::string& code() const { return code_; }
  [[nodiscard]] const std::string& doing() const { return doing_; }
  [[nodiscard]] const Where& where() const { return where_; }
  [[nodiscard]] const std::vector<std::string>& attached() const { return attached_; }

  // Fill in what the catcher knows and the thrower did not; what is already known stays.
  OsError& in_process(int pid);
  OsError& on_fd(int fd);
  OsError& of_kind(std::string kind);
  OsError& at_path(std::string path);
  OsError& during(std::string phase);
  // A clean-up failure that came after this one: the first failure wins, the others are told beside it.
  OsError& attach(std::string text);

 private:
  void compose();

  std::string code_;
  std::string call_;
  int error_ = 0;
  std::string doing_;
  Where where_;
  std::vector<std::string> attached_;
  std::string text_;
};

// A broken invariant of ours.
class Bug : public std::logic_error {
 public:
  using std::logic_error::logic_error;
};

// Turns the -1 convention into an OsError; gives the result back otherwise.
template <typename T>
T check(T result, const char* call, const char* doing) {
  if (result == static_cast<T>(-1)) throw OsError(call, errno, doing);
  return result;
}

// "EPERM" for EPERM; "errno 1234" for what has no name.
std::string errno_name(int error);

}  // namespace virt
