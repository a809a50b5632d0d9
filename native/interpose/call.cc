#include "interpose/call.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <netinet/in.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>

#include "interpose/address.h"
#include "interpose/caller.h"
#include "interpose/path.h"
#include "sys/clocks.h"

namespace virt {
namespace {

constexpr size_t kMostCallers = 4096;
constexpr int kWritingFlags = O_WRONLY | O_RDWR | O_CREAT | O_TRUNC;

}  // namespace

int port_of(const sockaddr_storage& a) {
  if (a.ss_family == AF_INET) return ntohs(reinterpret_cast<const sockaddr_in&>(a).sin_port);
  if (a.ss_family == AF_INET6) return ntohs(reinterpret_cast<const sockaddr_in6&>(a).sin6_port);
  return -1;
}

std::shared_ptr<const Caller> CallReader::look_at_caller(pid_t tid) {
  auto c = std::make_shared<Caller>();
  c->pid = tid;
  UniqueFd process(static_cast<int>(syscall(SYS_pidfd_open, tid, 0)));
  if (!process) {  // no leader
    const pid_t leader = number_after(read_start(proc_file(tid, "status")), "\nTgid:");
    if (leader > 0) c->pid = leader;
    process.reset(static_cast<int>(syscall(SYS_pidfd_open, c->pid, 0)));
  }
  c->host_pid = pid_seen_by(host_proc_, process.get());
  c->program = read_link_of(proc_file(tid, "exe"));
  c->root = read_link_of(proc_file(tid, "root"));
  return c;
}

std::shared_ptr<const Caller> CallReader::caller_of(pid_t tid) {
  std::unique_lock lock(mutex_);
  if (const auto known = callers_.find(tid); known != callers_.end() && !known->second.executes)
    return known->second.caller;
  const uint64_t changes = changes_;
  lock.unlock();
  auto caller = look_at_caller(tid);
  lock.lock();
  if (changes != changes_) return caller;  // it may be another already: not to be remembered
  if (callers_.size() >= kMostCallers) {
    callers_.clear();
    threads_.clear();
  }
  callers_[tid] = Known{caller};
  auto& threads = threads_[caller->pid];
  if (std::find(threads.begin(), threads.end(), tid) == threads.end()) threads.push_back(tid);
  return caller;
}

// Whoever shares the process is another program soon, or has another root.
void CallReader::expect_change(pid_t pid) {
  const std::lock_guard lock(mutex_);
  ++changes_;
  const auto threads = threads_.find(pid);
  if (threads == threads_.end()) return;
  for (const pid_t tid : threads->second) {
    const auto known = callers_.find(tid);
    if (known != callers_.end()) known->second.executes = true;
  }
}

bool CallReader::read_file(Call* call) {
  const InterposedCall& entry = *call->entry;
  const uint64_t* args = call->question.args;
  const pid_t tid = call->question.tid;
  call->path = path_of_call(tid, call->who->root, entry, args, entry.directory, entry.path);
  if (call->path.empty()) return false;
  if (entry.path2 >= 0) {
    call->path2 = path_of_call(tid, call->who->root, entry, args, entry.directory2, entry.path2);
    if (call->path2.empty()) return false;
  }
  if (entry.flags >= 0) call->flags = static_cast<int>(args[entry.flags]);
  if (entry.number == SYS_creat) call->flags = O_WRONLY | O_CREAT | O_TRUNC;
  if (entry.number == SYS_openat2) {
    open_how how{};
    if (read_memory(tid, args[2], &how, sizeof how) < sizeof how.flags) return false;
    call->flags = static_cast<int>(how.flags);
  }
  if (call->kind == CallKind::open && (call->flags & kWritingFlags) == 0) call->kind = CallKind::read;
  return true;
}

bool CallReader::read_socket(Call* call) {
  const InterposedCall& entry = *call->entry;
  const uint64_t* args = call->question.args;
  const pid_t tid = call->question.tid;
  uint64_t from = 0, size = 0;
  if (entry.kind == CallKind::message) {
    struct {
      uint64_t name;
      uint32_t name_size;
    } head{};
    static_assert(offsetof(msghdr, msg_namelen) == 8);
    if (read_memory(tid, args[1], &head, sizeof head) < sizeof head || head.name == 0) return false;
    from = head.name;
    size = head.name_size;
  } else if (entry.value >= 0) {
    from = args[entry.value];
    size = args[entry.value + 1];
  }
  if (from != 0 || entry.value >= 0) {
    size = std::min<uint64_t>(size, sizeof call->address);
    if (size < sizeof call->address.ss_family || read_memory(tid, from, &call->address, size) != size)
      return false;
    call->address_size = static_cast<socklen_t>(size);
    const auto family = call->address.ss_family;
    if (family != AF_INET && family != AF_INET6 && family != AF_UNIX)
      return false;  // netlink and the like stay inside
    if (family == AF_UNIX) {
      int port = 0;
      call->path = address_text(call->address, call->address_size, &port);
      if (call->path.empty() && entry.kind != CallKind::bind) return false;
      if (!call->path.empty() && call->path[0] != '@' && call->path[0] != '/')
        call->path = read_link_of(proc_file(tid, "cwd")) + "/" + call->path;
    }
  }
  const UniqueFd process(static_cast<int>(syscall(SYS_pidfd_open, call->who->pid, 0)));
  if (!process) return false;
  call->socket.reset(
      static_cast<int>(syscall(SYS_pidfd_getfd, process.get(), static_cast<int>(args[entry.descriptor]), 0)));
  return static_cast<bool>(call->socket);
}

bool CallReader::read(const Question& question, const InterposedCall& entry, Call* call) {
  call->entry = &entry;
  call->kind = entry.kind;
  call->question = question;
  call->realtime_ns = realtime_ns();
  call->who = caller_of(question.tid);
  if (entry.kind == CallKind::execute || entry.kind == CallKind::root) expect_change(call->who->pid);
  switch (entry.kind) {
    case CallKind::root:
      return false;
    case CallKind::bind:
    case CallKind::connect:
    case CallKind::listen:
    case CallKind::send:
    case CallKind::message:
    case CallKind::name:
      return read_socket(call);
    case CallKind::kill:
      call->target = static_cast<pid_t>(question.args[entry.descriptor]);
      call->flags = static_cast<int>(question.args[entry.flags]);
      return true;
    case CallKind::socket:
      return true;
    default:
      return read_file(call);
  }
}

}  // namespace virt
