#include "init/high_pids.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <string>

#include "sys/fd.h"

namespace virt::init {
namespace {

constexpr const char* kLastPid = "/proc/sys/kernel/ns_last_pid";

void set_last_pid(long pid) {
  const UniqueFd file(open(kLastPid, O_WRONLY | O_CLOEXEC));
  const std::string text = std::to_string(pid);
  if (file) (void)!write(file.get(), text.data(), text.size());
}

long number_in(const char* path, long otherwise) {
  const UniqueFd file(open(path, O_RDONLY | O_CLOEXEC));
  char text[32] = "";
  if (!file || read(file.get(), text, sizeof text - 1) <= 0) return otherwise;
  return std::atol(text);
}

}  // namespace

HighPids::HighPids(int threads) : before_(number_in(kLastPid, getpid())) {
  static long used = 4;
  // Numbers that are taken are passed over: from the middle up there is room for more threads than init ever has.
  const long pid_max = number_in("/proc/sys/kernel/pid_max", 32768);
  used = std::min(used + threads, pid_max / 2);
  set_last_pid(pid_max - used);
}

HighPids::~HighPids() { set_last_pid(before_); }

}  // namespace virt::init
