// Memory devices: /dev/null, zero, full, random, urandom. They hold no state. Any other device is somebody's
// hardware or kernel state and is refused (unsupported.cc), but where a remap put it: then the program has what the rule
// says, and gets what the rule says at reattach.
#include <fcntl.h>
#include <sys/sysmacros.h>

#include "base/error.h"
#include "resources/capture_context.h"
#include "resources/kinds.h"
#include "resources/rebuild_context.h"

namespace virt {
namespace {

constexpr unsigned kMemoryDevices = 1;  // Documentation/admin-guide/devices.txt

bool recognise(const Handle& h, const CaptureContext& c) {
  if (!S_ISCHR(h.st.st_mode) || (h.flags & O_PATH) != 0) return false;
  if (c.remapped.contains(h.link)) return true;
  if (major(h.st.st_rdev) != kMemoryDevices) return false;
  switch (minor(h.st.st_rdev)) {
    case 3:
    case 5:
    case 7:
    case 8:
    case 9:
      return true;
    default:
      return false;
  }
}

void capture(Handle& h, CaptureContext&) {
  h.record.set("path", without_deleted(h.link));
  h.record.set("device", static_cast<int64_t>(minor(h.st.st_rdev)));
}

int rebuild(const Value& record, RebuildContext& c) {
  const auto flags = static_cast<int>(record.at("flags").as_int());
  const int fd = c.open_in_pod(record.at("path").as_string(), flags & ~(O_CREAT | O_EXCL | O_TRUNC));
  struct stat st {};
  check(fstat(c.take(fd).get(), &st), "fstat", "examining a device");
  if (S_ISCHR(st.st_mode) && record.get_bool("remapped", false)) return fd;
  if (!S_ISCHR(st.st_mode) || major(st.st_rdev) != kMemoryDevices ||
      minor(st.st_rdev) != static_cast<unsigned>(record.at("device").as_int())) {
    throw OsError("ERR_FILE_REPLACED", "open", 0, "a device is another one here")
        .at_path(record.at("path").as_string());
  }
  return fd;
}

}  // namespace

const Kind kCharDevice{"device", recognise, capture, rebuild};

}  // namespace virt
