// epoll(7): what is watched, for which events, with which data. An item is known by the watched description
// and the number it had when it was added; the number may be closed or another file's by now (kcmp(2),
// KCMP_EPOLL_TFD). Edge-triggered items report what is ready once more, as after EPOLL_CTL_MOD.
#include <fcntl.h>
#include <linux/kcmp.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <map>

#include "base/error.h"
#include "resources/capture_context.h"
#include "resources/kinds.h"
#include "resources/rebuild_context.h"

namespace virt {
namespace {

bool recognise(const Handle& h, const CaptureContext&) { return h.link == "anon_inode:[eventpoll]"; }

// True if `candidate` is what item number `occurrence` under `tfd` of the epoll watches.
bool watches(const Handle& epoll, const Handle& candidate, uint32_t tfd, uint32_t occurrence) {
  kcmp_epoll_slot slot{};
  slot.efd = static_cast<uint32_t>(epoll.host_fd);
  slot.tfd = tfd;
  slot.toff = occurrence;
  return syscall(SYS_kcmp, candidate.host_pid, epoll.host_pid, KCMP_EPOLL_TFD, candidate.host_fd, &slot) == 0;
}

const Handle* find_watched(const Handle& epoll, CaptureContext& c, uint32_t tfd, uint32_t occurrence) {
  // Nearly always it is still the same number in the same process.
  if (const Handle* h = c.handle_of(epoll.host_pid, static_cast<int>(tfd));
      h != nullptr && watches(epoll, *h, tfd, occurrence)) {
    return h;
  }
  for (const Handle& h : *c.handles) {
    if (watches(epoll, h, tfd, occurrence)) return &h;
  }
  return nullptr;
}

void capture(Handle& h, CaptureContext& c) {
  Value items = Value::list();
  std::map<uint32_t, uint32_t> seen;
  for (const std::string_view line : h.info.all("tfd")) {
    // "5 events: 19 data: 5 pos:0 ino:61 sdev:e"
    const auto words = split_words(line);
    const auto tfd = words.empty() ? std::nullopt : parse_number(words[0]);
    const auto events = words.size() > 4 ? parse_number(words[2], 16) : std::nullopt;
    const auto data = words.size() > 4 ? parse_number(words[4], 16) : std::nullopt;
    if (!tfd || !events || !data) throw BadValue("unreadable epoll item in fdinfo");
    const auto number = static_cast<uint32_t>(*tfd);
    const Handle* target = find_watched(h, c, number, seen[number]++);
    if (target == nullptr) {
      c.block(h, "ERR_EPOLL_TARGET", "an epoll that watches a handle no process of the pod has open any more",
              "let the program remove it from the epoll");
      continue;
    }
    Value item = Value::map();
    item.set("fd", static_cast<int64_t>(number)).set("events", static_cast<int64_t>(*events));
    item.set("data", Value::hex(*data)).set("handle", target->id);
    items.push(std::move(item));
  }
  h.record.set("items", std::move(items));
}

// What only says how to wait; an item with nothing else is a one-shot that was used up.
constexpr uint32_t kHow = EPOLLWAKEUP | EPOLLONESHOT | EPOLLET | EPOLLEXCLUSIVE;

void control(RebuildContext& c, int epoll, int operation, const Value& item, uint32_t events) {
  const auto number = static_cast<int>(item.at("fd").as_int(0, INT32_MAX));
  const int target = c.handle_fd(item.at("handle").as_int());
  epoll_event event{};
  event.events = events;
  event.data.u64 = item.at("data").as_hex();
  Batch b = c.batch();
  // The item keeps the number under which it is added.
  const size_t placed = b.call(SYS_dup3, target, number, O_CLOEXEC);
  b.or_stop();
  const size_t done = b.call(SYS_epoll_ctl, epoll, operation, number, b.in(&event, sizeof event));
  b.call(SYS_close, number);
  c.run(b);
  b.must(placed, "dup3", "placing a handle for epoll");
  b.must(done, "epoll_ctl", "putting a handle back into an epoll");
}

// epoll_ctl(2) arms every item for errors and hang-ups at least, so a used-up one has to be used up again,
// while it is alone in the epoll. Where nothing can be reported yet (the read end of an empty pipe) it stays
// armed for those two.
void add_used_up(RebuildContext& c, int epoll, const Value& item, uint32_t how) {
  control(c, epoll, EPOLL_CTL_ADD, item, how | EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLPRI);
  epoll_event event{};
  const int reported = epoll_wait(c.take(epoll).get(), &event, 1, 0);
  if (check(reported, "epoll_wait", "putting a handle back into an epoll") == 0)
    control(c, epoll, EPOLL_CTL_MOD, item, how);
}

int rebuild(const Value& record, RebuildContext& c) {
  Batch b = c.batch();
  const size_t made = b.call(SYS_epoll_create1, EPOLL_CLOEXEC);
  const int fd = c.run_for_fd(b, made, "epoll_create1", "making an epoll");
  // The watched handles may come later, and may be epolls themselves.
  c.when_all_stand.emplace_back([&record, &c, fd] {
    const auto events_of = [](const Value& item) {
      return static_cast<uint32_t>(item.at("events").as_int(0, UINT32_MAX));
    };
    for (const Value& item : record.at("items").as_list()) {
      if ((events_of(item) & ~kHow) == 0) add_used_up(c, fd, item, events_of(item));
    }
    for (const Value& item : record.at("items").as_list()) {
      if ((events_of(item) & ~kHow) != 0) control(c, fd, EPOLL_CTL_ADD, item, events_of(item));
    }
  });
  set_status_flags(c.take(fd).get(), static_cast<int>(record.at("flags").as_int()));
  return fd;
}

}  // namespace

const Kind kEpoll{"epoll", recognise, capture, rebuild};

}  // namespace virt
