// signalfd(2): its mask. The signals themselves wait in the process.
#include <sys/signalfd.h>
#include <sys/syscall.h>

#include "base/error.h"
#include "resources/capture_context.h"
#include "resources/kinds.h"
#include "resources/rebuild_context.h"

namespace virt {
namespace {

bool recognise(const Handle& h, const CaptureContext&) { return h.link == "anon_inode:[signalfd]"; }

void capture(Handle& h, CaptureContext&) {
  h.record.set("mask", Value::hex(h.info.number("sigmask", 16).value_or(0)));
}

int rebuild(const Value& record, RebuildContext& c) {
  const uint64_t mask = record.at("mask").as_hex();
  Batch b = c.batch();
  const size_t made = b.call(SYS_signalfd4, -1, b.in(&mask, sizeof mask), sizeof mask, SFD_CLOEXEC);
  const int fd = c.run_for_fd(b, made, "signalfd4", "making a signalfd");
  set_status_flags(c.take(fd).get(), static_cast<int>(record.at("flags").as_int()));
  return fd;
}

}  // namespace

const Kind kSignalfd{"signalfd", recognise, capture, rebuild};

}  // namespace virt
