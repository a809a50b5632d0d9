// timerfd_create(2): clock, expiry, interval and ticks that were not read yet.
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>

#include <cerrno>
#include <ctime>

#include "base/error.h"
#include "resources/capture_context.h"
#include "resources/kinds.h"
#include "resources/rebuild_context.h"
#include "sys/file.h"

#ifndef TFD_IOC_SET_TICKS
#define TFD_IOC_SET_TICKS _IOW('T', 0, uint64_t)
#endif

namespace virt {
namespace {

constexpr int64_t kSecond = 1'000'000'000;

bool recognise(const Handle& h, const CaptureContext&) { return h.link == "anon_inode:[timerfd]"; }

int64_t nanoseconds(const timespec& t) { return int64_t{t.tv_sec} * kSecond + t.tv_nsec; }

timespec time_of(int64_t ns) { return {ns / kSecond, ns % kSecond}; }

// An hour of the wall clock stays that hour, however long the image lies about.
bool keeps_its_hour(int64_t clock, int64_t settime_flags) {
  return (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_ALARM) &&
         (settime_flags & TFD_TIMER_ABSTIME) != 0;
}

void capture(Handle& h, CaptureContext&) {
  // A periodic timer that has expired stands still until somebody asks: fdinfo alone shows neither the
  // periods that were missed nor when the next one ends. Asking counts them; the program reads the same as it
  // would have.
  itimerspec left{};
  check(timerfd_gettime(h.dup.get(), &left), "timerfd_gettime", "reading a timerfd");
  const ProcFields info(read_file("/proc/self/fdinfo/" + std::to_string(h.dup.get())));
  const auto clock = static_cast<int64_t>(info.number("clockid").value_or(0));
  const auto flags = static_cast<int64_t>(info.number("settime flags", 8).value_or(0));
  const int64_t value = nanoseconds(left.it_value);
  h.record.set("clock", clock).set("settimeFlags", flags);
  h.record.set("ticks", static_cast<int64_t>(info.number("ticks").value_or(0)));
  h.record.set("valueNs", value).set("intervalNs", nanoseconds(left.it_interval));
  if (value != 0 && keeps_its_hour(clock, flags)) {
    timespec now{};
    clock_gettime(CLOCK_REALTIME, &now);
    h.record.set("endNs", std::to_string(nanoseconds(now) + value));
  }
}

int rebuild(const Value& record, RebuildContext& c) {
  Batch b = c.batch();
  const size_t made = b.call(SYS_timerfd_create, record.at("clock").as_int(), TFD_CLOEXEC);
  const int fd = c.run_for_fd(b, made, "timerfd_create", "making a timerfd");
  const UniqueFd mine = c.take(fd);
  const int64_t value = record.at("valueNs").as_int(0, INT64_MAX),
                interval = record.at("intervalNs").as_int(0, INT64_MAX);
  itimerspec spec{};
  // Relative: right in any time namespace, ours or the pod's.
  int flags = 0;
  spec.it_interval = time_of(interval);
  spec.it_value = time_of(value);
  if (const Value* end = record.find("endNs")) {
    const auto ns = parse_number(end->as_string());
    if (!ns || *ns > static_cast<uint64_t>(INT64_MAX)) throw BadValue("a timerfd's end that is no number");
    spec.it_value = time_of(static_cast<int64_t>(*ns));
    flags =
        static_cast<int>(record.at("settimeFlags").as_int()) & (TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET);
  }
  if (value != 0 || interval != 0) {
    check(timerfd_settime(mine.get(), flags, &spec, nullptr), "timerfd_settime", "setting a timerfd");
  }
  const auto ticks = static_cast<uint64_t>(record.get_int("ticks", 0));
  if (ticks != 0 && ioctl(mine.get(), TFD_IOC_SET_TICKS, &ticks) != 0) {
    throw OsError("ioctl", errno, "setting a timerfd's ticks");
  }
  set_status_flags(mine.get(), static_cast<int>(record.at("flags").as_int()));
  return fd;
}

}  // namespace

const Kind kTimerfd{"timerfd", recognise, capture, rebuild};

}  // namespace virt
