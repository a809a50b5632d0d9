// memfd_create(2): name, seals, size and content. The content is a memory object (checkpoint/ reads and fills
// its pages); each open file description on it is a handle.
#include "resources/memfd.h"

#include <fcntl.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/error.h"
#include "resources/capture_context.h"
#include "resources/kinds.h"
#include "resources/rebuild_context.h"

namespace virt {
namespace {

constexpr std::string_view kPrefix = "/memfd:";
constexpr long kTmpfsMagic = 0x01021994;  // statfs(2)

bool recognise(const Handle& h, const CaptureContext&) {
  return S_ISREG(h.st.st_mode) && h.link.starts_with(kPrefix) && (h.flags & O_PATH) == 0;
}

void capture(Handle& h, CaptureContext& c) {
  struct statfs fs {};
  check(fstatfs(h.dup.get(), &fs), "fstatfs", "examining a memfd");
  if (fs.f_type != kTmpfsMagic) {
    c.block(h, "ERR_UNSUPPORTED", "a memfd of huge pages", "let the program close it first");
    return;
  }
  MemoryObject& m = c.memory("memfd", inode_of(h.st), static_cast<uint64_t>(h.st.st_size));
  m.kind = "memfd";
  m.fd = h.dup.get();
  m.record.set("name", without_deleted(h.link).substr(kPrefix.size()));
  m.record.set("exactBytes", int64_t{h.st.st_size});
  m.record.set("mode", static_cast<int>(h.st.st_mode & 07777));
  const int seals = fcntl(h.dup.get(), F_GET_SEALS);
  m.record.set("seals", check(seals, "fcntl", "reading a memfd's seals"));
  h.record.set("memory", m.id);
  h.record.set("position", h.position);
}

int rebuild(const Value& record, RebuildContext& c) {
  const auto found = c.memory_fds.find(record.at("memory").as_int());
  if (found == c.memory_fds.end()) throw BadValue("a memfd without its memory");
  const auto flags = static_cast<int>(record.at("flags").as_int());
  const int fd = c.reopen(found->second, flags & (O_ACCMODE | O_APPEND | O_NONBLOCK));
  const UniqueFd mine = c.take(fd);
  if (const int64_t position = record.get_int("position", 0); position != 0) {
    check(lseek(mine.get(), position, SEEK_SET), "lseek", "positioning a memfd");
  }
  return fd;
}

}  // namespace

void size_memfds(const Value& memory, const RebuildContext& context) {
  for (const Value& object : memory.as_list()) {
    const Value* size = object.find("exactBytes");
    if (size == nullptr) continue;
    const UniqueFd fd = context.take(context.memory_fds.at(object.at("id").as_int()));
    check(ftruncate(fd.get(), size->as_int(0, INT64_MAX)), "ftruncate", "sizing a memfd");
  }
}

const Kind kMemfd{"memfd", recognise, capture, rebuild};

}  // namespace virt
