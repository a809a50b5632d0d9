// What /proc says of one process or thread, parsed as if an enemy had written it: comm and paths may hold any
// byte, so fixed fields are found from the right end. The pid is the one this process sees (the host's).
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace virt {

std::string proc_path(pid_t pid, std::string_view rest);

// /proc/PID/stat, proc(5). Addresses are 0 unless the reader may ptrace the process.
struct ProcStat {
  std::string comm;
  char state = '?';
  int ppid = 0, pgrp = 0, session = 0, tty_nr = 0;
  int threads = 0;
  uint64_t start_ticks = 0;
  uint64_t start_code = 0, end_code = 0, start_stack = 0;
  uint64_t start_data = 0, end_data = 0, start_brk = 0;
  uint64_t arg_start = 0, arg_end = 0, env_start = 0, env_end = 0;
  int exit_signal = 0;  // what its parent is sent when it ends; 0: nothing
  int exit_code = 0;
};
std::optional<ProcStat> try_read_stat(const std::string& dir);

// "Name:\tvalue" files: status, fdinfo/N, timens_offsets. Keys keep their case; a repeated key keeps all
// values.
class ProcFields {
 public:
  explicit ProcFields(std::string_view text);
  [[nodiscard]] std::optional<std::string_view> find(std::string_view key) const;
  [[nodiscard]] std::vector<std::string_view> all(std::string_view key) const;
  // The value as a number; nothing if the key is missing, BadValue if it is no number.
  [[nodiscard]] std::optional<uint64_t> number(std::string_view key, int base = 10) const;
  [[nodiscard]] std::vector<uint64_t> numbers(std::string_view key, int base = 10) const;

 private:
  std::shared_ptr<const std::string> text_;  // the views below point into it; it stays put when this moves
  std::vector<std::pair<std::string_view, std::string_view>> fields_;
};
std::optional<ProcFields> try_read_status(const std::string& dir);

// /proc/PID/limits: soft and hard limit in the order of their numbers (getrlimit(2)), RLIM64_INFINITY for
// unlimited. Unlike prlimit(2) it can be read of a process with another user id without CAP_SYS_RESOURCE,
// which root has not in most containers.
std::optional<std::vector<std::pair<uint64_t, uint64_t>>> try_read_limits(const std::string& dir);

// Splits at runs of blanks.
std::vector<std::string_view> split_words(std::string_view text);
std::optional<uint64_t> parse_number(std::string_view text, int base = 10);

}  // namespace virt
