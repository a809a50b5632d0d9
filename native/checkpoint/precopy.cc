#include "checkpoint/precopy.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "base/error.h"
#include "checkpoint/memory_map.h"
#include "checkpoint/read_pages.h"
#include "sys/file.h"
#include "sys/proc.h"

#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif

namespace virt {
namespace {

// As survey_memory() looks for pages of the process's own; a device's memory is refused there.
bool is_own_memory(const Vma& v) {
  return !v.shared && v.path != "[vdso]" && v.path != "[vsyscall]" && !v.path.starts_with("[vvar") &&
         !(v.path.starts_with("/dev/") && !v.path.starts_with("/dev/zero") &&
           !v.path.starts_with("/dev/shm/"));
}

// A descriptor opened with O_DIRECT: a device may write into the process's memory after the page was taken for unwritten.
bool has_direct_file(pid_t host_pid) {
  const auto fds = try_list_numbers(proc_path(host_pid, "fdinfo"));
  if (!fds) return true;
  for (const int fd : *fds) {
    const auto text = try_read_file(proc_path(host_pid, "fdinfo/" + std::to_string(fd)));
    if (!text) continue;
    const auto flags = ProcFields(*text).number("flags", 8);
    if (flags && (*flags & O_DIRECT) != 0) return true;
  }
  return false;
}

}  // namespace

void Precopy::arm(FrozenProcess& process, Foothold& foothold) {
  if (processes_.contains(process.host_pid)) return;
  Agent& agent = foothold.agent();
  const int64_t fd =
      agent.call(foothold.borrow(0), SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
  if (fd < 0) return;
  const UniqueFd pidfd(static_cast<int>(syscall(SYS_pidfd_open, process.host_pid, 0)));
  UniqueFd ours(pidfd ? static_cast<int>(syscall(SYS_pidfd_getfd, pidfd.get(), static_cast<int>(fd), 0))
                      : -1);
  agent.call(foothold.borrow(0), SYS_close, fd);
  if (!ours) return;
  try {
    processes_.emplace(process.host_pid, Watched(WriteWatch(process.host_pid, std::move(ours))));
  } catch (const OsError&) {
    // A kernel without asynchronous write protection (before 6.7): everything is read again at the stop.
  }
}

Precopy::Round Precopy::round(unsigned threads, const std::atomic<bool>& stop,
                              std::atomic<uint64_t>& done_bytes) {
  Round round;
  std::vector<PageJob> jobs;
  std::vector<Watched*> whose;
  std::vector<std::vector<std::pair<uint64_t, uint64_t>>> mappings;
  for (auto process = processes_.begin(); process != processes_.end();) {
    const pid_t host_pid = process->first;
    const auto maps = try_read_file(proc_path(host_pid, "maps"));
    // Not watched (any more): it has ended, executed another program (no mapping can be watched then), or does direct I/O.
    std::vector<std::pair<uint64_t, uint64_t>> watched;
    PageJob job;
    job.host_pid = host_pid;
    job.live = true;
    if (maps && !has_direct_file(host_pid)) {
      for (const Vma& v : parse_smaps(*maps)) {
        if (!is_own_memory(v)) continue;
        // Another mapping may have taken the place of one that was watched, and before Linux 6.13 one that was moved there keeps
        // the marks of pages that were sent as of where it was.
        if (!process->second.watch.watches(v.start, v.end)) forget(process->second.sent, v.start, v.end);
        if (!process->second.watch.watch(v.start, v.end)) continue;
        watched.emplace_back(v.start, v.end);
        for (PageRange& r : process->second.watch.take(v.start, v.end)) {
          r.keep_zeros = v.backed();
          forget(process->second.sent, r.start, r.end);
          job.ranges.push_back(r);
        }
      }
    }
    if (watched.empty()) {
      process = processes_.erase(process);
      continue;
    }
    ++round.watched;
    jobs.push_back(std::move(job));
    whose.push_back(&process->second);
    mappings.push_back(std::move(watched));
    ++process;
  }
  const std::vector<JobRuns> runs = read_pages(jobs, store_, threads, stop, done_bytes);
  for (size_t j = 0; j < runs.size(); ++j) {
    for (const PageRun& r : runs[j]) whose[j]->sent[r.start] = r;
    for (const auto& [start, end] : mappings[j])
      round.dirty_bytes += whose[j]->watch.written_bytes(start, end);
  }
  return round;
}

void Precopy::forget(std::map<uint64_t, PageRun>& sent, uint64_t start, uint64_t end) {
  auto at = sent.upper_bound(start);
  if (at != sent.begin()) --at;
  while (at != sent.end() && at->first < end) {
    const PageRun run = at->second;
    const uint64_t run_end = run.start + run.count * kPageBytes;
    if (run_end <= start) {
      ++at;
      continue;
    }
    at = sent.erase(at);
    const auto part = [&](uint64_t from, uint64_t to) {
      PageRun rest = run;
      rest.start = from;
      rest.count = (to - from) / kPageBytes;
      if (run.index != kZeroPages) rest.index += (from - run.start) / kPageBytes;
      return rest;
    };
    if (run.start < start) sent[run.start] = part(run.start, start);
    if (end < run_end) {
      sent[end] = part(end, run_end);
      break;
    }
  }
}

bool Precopy::registered(pid_t host_pid, const Vma& vma) const {
  // "uw": a userfaultfd sees its writes. Ours, if it is nobody else's: a program with one of its own is refused by its descriptor.
  return processes_.contains(host_pid) && vma.has("uw") && !vma.has("um") && !vma.has("ui");
}

bool Precopy::watches(pid_t host_pid, const Vma& vma) const {
  return registered(host_pid, vma) && is_own_memory(vma);
}

void Precopy::known(pid_t host_pid, const PageRange& unwritten, std::vector<PageRange>* to_read,
                    std::vector<PageRun>* known) const {
  const auto& sent = processes_.at(host_pid).sent;
  const auto must_read = [&](uint64_t start, uint64_t end) {
    PageRange rest = unwritten;
    rest.start = start;
    rest.end = end;
    rest.unwritten = false;
    to_read->push_back(rest);
  };
  uint64_t at = unwritten.start;
  auto next = sent.upper_bound(at);
  if (next != sent.begin()) --next;
  for (; at < unwritten.end && next != sent.end() && next->first < unwritten.end; ++next) {
    const PageRun& run = next->second;
    const uint64_t run_end = run.start + run.count * kPageBytes;
    if (run_end <= at) continue;
    if (run.start > at) {
      must_read(at, run.start);
      at = run.start;
    }
    const uint64_t to = std::min(unwritten.end, run_end);
    if (run.index != kZeroPages)
      known->push_back(
          {at, (to - at) / kPageBytes, run.index + (at - run.start) / kPageBytes, unwritten.huge});
    at = to;
  }
  if (at < unwritten.end) must_read(at, unwritten.end);
}

}  // namespace virt
