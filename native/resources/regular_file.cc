// Regular files: offset, flags, and for those that no name leads to any more (unlinked, O_TMPFILE) the
// content.
#include <fcntl.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/error.h"
#include "resources/capture_context.h"
#include "resources/kinds.h"
#include "resources/rebuild_context.h"

namespace virt {
namespace {

// Flags that are done once they have had their effect at open(2).
constexpr int kSpent = O_CREAT | O_EXCL | O_TRUNC | O_NOCTTY | O_CLOEXEC | O_TMPFILE;  // O_DIRECTORY is in it

// Regular to look at, and something else: message queues (mq_overview(7)), secret memory (memfd_secret(2)).
bool only_looks_like_one(int fd) {
  constexpr long kMessageQueues = 0x19800202, kSecretMemory = 0x5345434d;  // statfs(2)
  struct statfs fs {};
  return fstatfs(fd, &fs) == 0 && (fs.f_type == kMessageQueues || fs.f_type == kSecretMemory);
}

bool recognise(const Handle& h, const CaptureContext&) {
  return S_ISREG(h.st.st_mode) && (h.flags & O_PATH) == 0 && h.link.starts_with("/") &&
         !only_looks_like_one(h.dup.get());
}

void capture(Handle& h, CaptureContext& c) {
  Blocker about;
  about.kind = "file";
  if (!h.uses.empty()) {
    about.pid = h.uses[0].pid;
    about.fd = h.uses[0].fd;
  }
  h.record.set("file", c.file(h.link, h.st, h.dup.get(), about));
  h.record.set("position", h.position);
}

int rebuild(const Value& record, RebuildContext& c) {
  const auto flags = static_cast<int>(record.at("flags").as_int());
  const Value& file = c.file(record.at("file").as_int());
  const int wanted = flags & ~kSpent;
  const int fd = file.get_bool("unlinked", false)
                     ? c.reopen(c.mapped_file(file.at("id").as_int(), O_RDWR), wanted)
                     : c.open_in_pod(file.at("path").as_string(), wanted);
  const UniqueFd mine = c.take(fd);
  if (const int64_t position = record.get_int("position", 0); position != 0) {
    check(lseek(mine.get(), position, SEEK_SET), "lseek", "positioning a file");
  }
  return fd;
}

}  // namespace

const Kind kRegularFile{"file", recognise, capture, rebuild};

}  // namespace virt
