#include "base/error.h"

#include <cstring>

namespace virt {

std::string errno_name(int error) {
  const char* name = strerrorname_np(error);
  return name != nullptr ? name : "errno " + std::to_string(error);
}

OsError::OsError(std::string call, int error, std::string doing)
    : OsError("ERR_SYSCALL", std::move(call), error, std::move(doing)) {}

OsError::OsError(std::string code, std::string call, int error, std::string doing)
    : std::runtime_error(""),
      code_(std::move(code)),
      call_(std::move(call)),
      error_(error),
      doing_(std::move(doing)) {
  compose();
}

OsError& OsError::in_process(int pid) {
  if (!where_.pid) where_.pid = pid;
  compose();
  return *this;
}

OsError& OsError::on_fd(int fd) {
  if (!where_.fd) where_.fd = fd;
  compose();
  return *this;
}

OsError& OsError::of_kind(std::string kind) {
  if (where_.kind.empty()) where_.kind = std::move(kind);
  compose();
  return *this;
}

OsError& OsError::at_path(std::string path) {
  if (where_.path.empty()) where_.path = std::move(path);
  compose();
  return *this;
}

OsError& OsError::during(std::string phase) {
  if (where_.phase.empty()) where_.phase = std::move(phase);
  compose();
  return *this;
}

OsError& OsError::attach(std::string text) {
  attached_.push_back(std::move(text));
  return *this;
}

void OsError::compose() {
  text_ = doing_;
  if (where_.pid) text_ += ", pid " + std::to_string(*where_.pid);
  if (where_.fd) text_ += ", fd " + std::to_string(*where_.fd);
  if (!where_.kind.empty()) text_ += " (" + where_.kind + ")";
  if (!where_.path.empty()) text_ += ", " + where_.path;
  if (error_ != 0) {
    const char* said = strerrordesc_np(error_);
    text_ += ": " + call_ + ": " + (said != nullptr ? said : errno_name(error_).c_str());
  }
}

}  // namespace virt
