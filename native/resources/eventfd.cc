// eventfd(2): the counter and whether it is a semaphore.
#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/error.h"
#include "resources/capture_context.h"
#include "resources/kinds.h"
#include "resources/rebuild_context.h"

namespace virt {
namespace {

bool recognise(const Handle& h, const CaptureContext&) { return h.link == "anon_inode:[eventfd]"; }

// Kernels before 6.5 do not say in fdinfo whether it is a semaphore. A read says so: of two or more, a
// semaphore gives one. What is taken is put back at once; nothing of the pod runs meanwhile.
bool probe_semaphore(int fd, uint64_t count) {
  if ((fcntl(fd, F_GETFL) & O_ACCMODE) != O_RDWR) return false;
  const uint64_t two = 2;
  uint64_t got = 0;
  if (count > ~uint64_t{0} - 4) return false;  // no room to ask
  if (write(fd, &two, sizeof two) != sizeof two || read(fd, &got, sizeof got) != sizeof got) {
    throw OsError("read", errno, "asking an eventfd what it is");
  }
  if (got == 1) {
    (void)!read(fd, &got, sizeof got);
    return true;
  }
  if (count > 0) (void)!write(fd, &count, sizeof count);
  return false;
}

void capture(Handle& h, CaptureContext&) {
  const uint64_t count = h.info.number("eventfd-count", 16).value_or(0);
  h.record.set("count", Value::hex(count));
  const auto semaphore = h.info.number("eventfd-semaphore");
  if (semaphore ? *semaphore != 0 : probe_semaphore(h.dup.get(), count)) h.record.set("semaphore", true);
}

int rebuild(const Value& record, RebuildContext& c) {
  const uint64_t count = record.at("count").as_hex();
  Batch b = c.batch();
  const int flags = record.get_bool("semaphore", false) ? EFD_SEMAPHORE : 0;
  const size_t made = b.call(SYS_eventfd2, 0, flags | EFD_CLOEXEC);
  const int fd = c.run_for_fd(b, made, "eventfd2", "making an eventfd");
  const UniqueFd mine = c.take(fd);
  if (count != 0 && write(mine.get(), &count, sizeof count) != sizeof count) {
    throw OsError("write", errno, "setting an eventfd");
  }
  set_status_flags(mine.get(), static_cast<int>(record.at("flags").as_int()));
  return fd;
}

}  // namespace

const Kind kEventfd{"eventfd", recognise, capture, rebuild};

}  // namespace virt
