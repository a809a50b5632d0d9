#include "resources/blocker.h"

namespace virt {

Value Blocker::to_value() const {
  Value v = Value::map();
  v.set("code", code).set("message", reason);
  if (!hint.empty()) v.set("hint", hint);
  if (pid) v.set("pid", *pid);
  if (fd) v.set("fd", *fd);
  if (!kind.empty()) v.set("kind", kind);
  if (!path.empty()) v.set("path", path);
  return v;
}

}  // namespace virt
