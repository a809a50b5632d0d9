// Agent makes a stopped thread of another process perform system calls (arch/agent.h has the code that runs
// there). A Batch collects calls and the memory they point to; Agent::run carries it over, lets the thread
// run it in one go, and brings results and memory back.
//
// What is promised: the thread's registers and signal mask are what they were when the borrower gives it
// back, and if this process dies at any instruction the thread goes home by itself. What is lost then: the
// pages the agent lived in stay mapped until the next capture finds and removes them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "arch/agent.h"
#include "trace/memory.h"
#include "trace/thread.h"

namespace virt {

// Where the agent lives in one process. The data area is header, then calls, then scratch memory.
struct AgentSite {
  RemoteAddress code = 0;
  RemoteAddress data = 0;
};

inline constexpr size_t kAgentMostCalls = 512;
inline constexpr size_t kAgentHeaderBytes = 256;
inline constexpr size_t kAgentScratchBytes = 128 << 10;
inline constexpr size_t kAgentDataBytes =
    (kAgentHeaderBytes + kAgentMostCalls * sizeof(AgentCall) + kAgentScratchBytes + 4095) / 4096 * 4096;

class Batch {
 public:
  explicit Batch(const AgentSite& site) : site_(site) {}

  // Adds a call; gives its index for result() and for from().
  template <typename... Args>
  size_t call(long number, Args... args) {
    static_assert(sizeof...(args) <= 6);
    AgentCall c;
    c.number = static_cast<uint32_t>(number);
    size_t i = 0;
    ((c.args[i++] = static_cast<uint64_t>(args)), ...);
    return add(c);
  }
  // The latest call takes the result of call `source` as its argument `which` (1..6).
  Batch& from(unsigned which, size_t source);
  // If the latest call fails the rest is not made; their results read -ECANCELED.
  Batch& or_stop();

  // Memory in the other process, alive for this run: filled with `data`, or zero.
  RemoteAddress in(const void* data, size_t size);
  RemoteAddress in(const std::string& text) { return in(text.c_str(), text.size() + 1); }
  RemoteAddress out(size_t size);

  [[nodiscard]] size_t size() const { return calls_.size(); }
  // True when another call with up to `scratch` bytes might not fit: run it first.
  [[nodiscard]] bool full(size_t scratch = 512) const;

  // After the run.
  [[nodiscard]] int64_t result(size_t index) const { return calls_.at(index).result; }
  // The result, or OsError naming the call if it was a negative errno.
  int64_t must(size_t index, const char* call, const char* doing) const;
  void read(RemoteAddress from, void* to, size_t size) const;
  template <typename T>
  [[nodiscard]] T object(RemoteAddress from) const {
    T o{};
    read(from, &o, sizeof o);
    return o;
  }

 private:
  friend class Agent;
  size_t add(const AgentCall& call);
  [[nodiscard]] RemoteAddress scratch_base() const;

  AgentSite site_;
  std::vector<AgentCall> calls_;
  std::string scratch_;
};

// A thread that was borrowed, and what it was doing.
struct Borrowed {
  Thread* thread = nullptr;
  user_regs_struct home{};
  uint64_t mask = 0;
  pid_t tgid = 0, tid = 0;   // as the thread sees itself
  RemoteAddress commit = 0;  // non-zero: without a tracer it waits for this word first (a pod being rebuilt)
  uint64_t avoid_marks = 0;  // signals that must not be the end mark: caught or pending
};

class Agent {
 public:
  Agent(pid_t host_pid, AgentSite site) : host_pid_(host_pid), site_(site), memory_(host_pid) {}

  [[nodiscard]] const AgentSite& site() const { return site_; }
  [[nodiscard]] const RemoteMemory& memory() const { return memory_; }

  void run(const Borrowed& who, Batch& batch);
  // Host pids of the children and threads that were made during the last run, if the thread is traced with
  // PTRACE_O_TRACEFORK and the like; they are stopped, or about to.
  [[nodiscard]] const std::vector<pid_t>& born() const { return born_; }
  // One call; its result, or a negative errno.
  template <typename... Args>
  int64_t call(const Borrowed& who, long number, Args... args) {
    Batch batch(site_);
    batch.call(number, args...);
    run(who, batch);
    return batch.result(0);
  }

 private:
  pid_t host_pid_;
  AgentSite site_;
  RemoteMemory memory_;
  std::vector<pid_t> born_;
};

// Lets a stopped thread make exactly one call from code at `code` with its header and call at `cell`, both in
// memory it can execute and read but need not write; gives the result. For making and removing the Agent's
// own memory, from the tail of the vDSO (arch/vdso.h).
int64_t run_single_call(const Borrowed& who, RemoteAddress code, RemoteAddress cell, AgentCall call);

// Puts registers and signal mask back. The thread stays stopped.
void give_back(const Borrowed& who);

// A signal the program does not notice: ignored by default and neither caught nor pending. SIGURG if all are:
// whoever catches even that (Go) takes it as a hint only.
int choose_mark(uint64_t avoid);

}  // namespace virt
