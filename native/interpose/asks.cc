#include "interpose/asks.h"

#include <algorithm>
#include <climits>
#include <ctime>
#include <utility>

#include "interpose/address.h"
#include "interpose/path.h"
#include "sys/wire.h"

namespace virt {
namespace {

constexpr uint32_t kUsualTimeoutMs = 5000;
constexpr int kMostErrno = 4095;

std::string encode(const Call& call, const Rule& rule) {
  wire::Writer w;
  int port = -1;
  const bool unix_socket = call.address.ss_family == AF_UNIX;
  const std::string address =
      unix_socket ? std::string() : address_text(call.address, call.address_size, &port);
  w.number(call.question.id);
  w.number(call.kind);
  w.number(static_cast<uint32_t>(call.who->pid));
  w.number(static_cast<uint32_t>(call.who->host_pid));
  w.number(static_cast<uint32_t>(call.question.tid));
  w.text(call.entry->name);
  w.text(call.who->program);
  w.text(call.path.empty() || call.path[0] == '@' ? call.path : canonical_path(call.path));
  w.text(call.path2.empty() ? std::string() : canonical_path(call.path2));
  w.number(static_cast<int32_t>(call.flags));
  w.text(address);
  w.number(static_cast<int32_t>(port));
  w.number(static_cast<int32_t>(call.target));
  for (const uint64_t a : call.question.args) w.number(a);
  w.number(rule.fallback);
  w.number(rule.fallback_error);
  return w.bytes();
}

Ask fallen_back(Ask ask) {
  ask.rule.verdict = ask.rule.fallback;
  ask.rule.error = ask.rule.fallback_error;
  return ask;
}

}  // namespace

void Asks::add(Call call, const Rule& rule) {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  const uint32_t timeout_ms = rule.timeout_ms == 0 ? kUsualTimeoutMs : rule.timeout_ms;
  Ask ask;
  ask.deadline_ns = int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec + int64_t{timeout_ms} * 1'000'000;
  ask.rule = rule;
  std::string told = encode(call, rule);
  const uint64_t id = call.question.id;
  ask.call = std::move(call);
  const std::lock_guard lock(mutex_);
  waiting_.insert_or_assign(id, std::move(ask));
  news_.push_back(std::move(told));
}

std::vector<std::string> Asks::take_news() {
  const std::lock_guard lock(mutex_);
  return std::exchange(news_, {});
}

bool Asks::take(uint64_t id, Ask* ask) {
  const std::lock_guard lock(mutex_);
  const auto found = waiting_.find(id);
  if (found == waiting_.end()) return false;
  *ask = std::move(found->second);
  waiting_.erase(found);
  return true;
}

std::vector<Ask> Asks::take_due(int64_t now_ns) {
  const std::lock_guard lock(mutex_);
  std::vector<Ask> due;
  for (auto i = waiting_.begin(); i != waiting_.end();) {
    if (i->second.deadline_ns > now_ns) {
      ++i;
      continue;
    }
    due.push_back(fallen_back(std::move(i->second)));
    i = waiting_.erase(i);
  }
  return due;
}

std::vector<Ask> Asks::take_all() { return take_due(INT64_MAX); }

int64_t Asks::next_deadline_ns() {
  const std::lock_guard lock(mutex_);
  int64_t next = INT64_MAX;
  for (const auto& [id, ask] : waiting_) next = std::min(next, ask.deadline_ns);
  return next;
}

bool HookAnswer::decode(std::string_view bytes, HookAnswer* answer) {
  wire::Reader in(bytes);
  answer->id = in.number<uint64_t>();
  answer->verdict = in.number<HookVerdict>();
  answer->value = in.number<int64_t>();
  answer->to_path = in.text();
  answer->to_address = in.text();
  answer->to_port = in.number<int32_t>();
  if (!in.done()) return false;
  const size_t address = answer->to_address.size();
  if (address != 0 && address != 4 && address != 16) return false;
  if (answer->to_port < -1 || answer->to_port > 65535) return false;
  if (!answer->to_path.empty() && answer->to_path[0] != '/' && answer->to_path[0] != '@') return false;
  switch (answer->verdict) {
    case HookVerdict::pass:
    case HookVerdict::redirect:
    case HookVerdict::answer:
    case HookVerdict::inject:
      return true;
    case HookVerdict::deny:
      return answer->value > 0 && answer->value <= kMostErrno;
  }
  return false;
}

}  // namespace virt
