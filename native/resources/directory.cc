// Directories (with the position of readdir) and O_PATH handles of anything that has a path.
#include <fcntl.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/error.h"
#include "resources/capture_context.h"
#include "resources/kinds.h"
#include "resources/rebuild_context.h"

namespace virt {
namespace {

bool recognise_directory(const Handle& h, const CaptureContext&) {
  return S_ISDIR(h.st.st_mode) && (h.flags & O_PATH) == 0;
}

bool recognise_path(const Handle& h, const CaptureContext&) {
  return (h.flags & O_PATH) != 0 && h.link.starts_with("/");
}

void require_path(Handle& h, CaptureContext& c) {
  const std::string path = without_deleted(h.link);
  struct stat there {};
  // A link itself (O_PATH | O_NOFOLLOW) is not what its path leads to.
  const bool link = S_ISLNK(h.st.st_mode);
  if (shown_deleted(h.link) ||
      (!link && (!c.stat_in_pod(path, &there) || inode_of(there) != inode_of(h.st)))) {
    c.block(h, "ERR_FILE_REPLACED", "a path that does not lead there any more",
            "put the directory or file back under this name, or let the program close it");
  }
  h.record.set("path", path);
}

uint64_t file_system(int fd) {
  struct statfs fs {};
  return fstatfs(fd, &fs) == 0 ? static_cast<uint64_t>(fs.f_type) : 0;
}

// A position is a word of the file system's own: another kind of one takes it for something else, and overlayfs counts in
// what it has just put together.
bool keeps_position(const Value& record, int fd) {
  constexpr uint64_t kOverlay = 0x794c7630;  // statfs(2)
  const Value* was = record.find("fileSystem");
  const uint64_t now = file_system(fd);
  return was == nullptr ? now != kOverlay : was->as_hex() == now && now != kOverlay;
}

void capture_directory(Handle& h, CaptureContext& c) {
  require_path(h, c);
  // ext4 counts in hashes of 63 bits.
  h.record.set("position", Value::hex(static_cast<uint64_t>(h.position)));
  if (h.position != 0) h.record.set("fileSystem", Value::hex(file_system(h.dup.get())));
}

int rebuild_directory(const Value& record, RebuildContext& c) {
  const int fd =
      c.open_in_pod(record.at("path").as_string(),
                    (static_cast<int>(record.at("flags").as_int()) & ~(O_CREAT | O_EXCL)) | O_DIRECTORY);
  const UniqueFd mine = c.take(fd);
  const Value& at = record.at("position");
  const auto position = at.is_string() ? static_cast<int64_t>(at.as_hex()) : at.as_int(0, INT64_MAX);
  if (position != 0 && !keeps_position(record, mine.get())) {
    c.notes.push_back(record.at("path").as_string() +
                      ": a directory that was being read is read from its beginning again");
  } else if (position != 0) {
    // ext4 remembers where the first look began, and rewinding would lead there: let that be the beginning.
    char some[1024];
    check(syscall(SYS_getdents64, mine.get(), some, sizeof some), "getdents64", "reading a directory");
    check(lseek(mine.get(), position, SEEK_SET), "lseek", "positioning a directory");
  }
  return fd;
}

void capture_path(Handle& h, CaptureContext& c) { require_path(h, c); }

int rebuild_path(const Value& record, RebuildContext& c) {
  constexpr int kMeaningful =
      O_PATH | O_DIRECTORY | O_NOFOLLOW;  // open(2): all others are ignored with O_PATH
  return c.open_in_pod(record.at("path").as_string(),
                       static_cast<int>(record.at("flags").as_int()) & kMeaningful);
}

}  // namespace

const Kind kDirectory{"directory", recognise_directory, capture_directory, rebuild_directory};
const Kind kPathHandle{"path", recognise_path, capture_path, rebuild_path};

}  // namespace virt
