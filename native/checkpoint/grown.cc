#include "checkpoint/grown.h"

#include <algorithm>
#include <cerrno>

#include "base/error.h"
#include "init/region.h"
#include "memory/scan.h"

namespace virt {
namespace {

constexpr uint64_t kLowest = uint64_t{64} << 30, kHighest = uint64_t{0x500000000000};
constexpr uint64_t kMostThreads = 100'000;

uint64_t page_up(uint64_t n) { return (n + kPageBytes - 1) / kPageBytes * kPageBytes; }

}  // namespace

AgentSite Region::site() const { return {start + init::kRegionCode, start + init::kRegionData}; }
uint64_t Region::commit() const { return start + init::kRegionCommit; }

Region choose_region(const Value& processes) {
  Region r;
  std::vector<std::pair<uint64_t, uint64_t>> taken;
  for (const Value& p : processes.as_list()) {
    if (p.get_bool("zombie", false)) continue;
    r.header_count = std::max<uint64_t>(r.header_count, p.at("threads").as_list().size());
    for (const Value& m : p.at("mappings").as_list()) {
      taken.emplace_back(m.at("start").as_int(0, INT64_MAX), m.at("end").as_int(0, INT64_MAX));
    }
  }
  if (r.header_count > kMostThreads) throw BadValue("an image with too many threads");
  std::sort(taken.begin(), taken.end());
  const uint64_t headers_at = init::kRegionData + kAgentDataBytes;
  const uint64_t parking_at = page_up(headers_at + r.header_count * kAgentHeaderBytes);
  r.size = parking_at + kParkingBytes;
  // A guard page's width to the neighbours, so that a stack below never grows into it.
  constexpr uint64_t kDistance = 16 << 20;
  uint64_t at = kLowest;
  for (const auto& [start, end] : taken) {
    if (start >= at && start - at >= r.size + 2 * kDistance) break;
    at = std::max(at, end);
  }
  at = page_up(at) + kDistance;
  if (at + r.size > kHighest)
    throw OsError("ERR_NO_ROOM", "mmap", ENOMEM, "finding room for the agent in all processes");
  r.start = at;
  r.headers = r.start + headers_at;
  r.parking = r.start + parking_at;
  return r;
}

Borrowed GrownProcess::borrow(const Region& region, size_t thread) {
  GrownThread& t = threads.at(thread);
  Borrowed b;
  b.thread = &t.thread;
  b.home = t.thread.registers();
  b.mask = ~uint64_t{0};
  b.tgid = pid;
  b.tid = t.tid;
  b.commit = region.commit();
  b.avoid_marks = avoid_marks;
  return b;
}

Thread adopt(pid_t host_tid, const char* doing) {
  Thread t = Thread::adopted(host_tid);
  if (!t.await_stop()) throw OsError("ERR_PROCESS_GONE", "clone3", ESRCH, doing);
  return t;
}

}  // namespace virt
