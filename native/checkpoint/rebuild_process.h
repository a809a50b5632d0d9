// Everything of a process besides its memory: descriptors, paths, signals, timers, credentials, limits,
// threads, registers. Done to it by remote system calls and from outside, while it is held.
#pragma once

#include <sys/resource.h>

#include <map>
#include <string>
#include <vector>

#include "arch/xstate.h"
#include "checkpoint/grow_tree.h"
#include "resources/rebuild_context.h"
#include "sys/fd.h"

namespace virt {

class ProcessRebuilder {
 public:
  ProcessRebuilder(const Value& plan, Tree& tree, RebuildContext& context);

  // In this order, each for all processes before the next.
  void set_addresses(GrownProcess& p);  // prctl(PR_SET_MM_MAP): break, arguments, exe
  void place_handles(GrownProcess& p);  // descriptors at their numbers, everything else closed
  // Controlling terminals and foreground groups: of one session, as soon as its leader has made it; of all
  // again, when the groups are there.
  void claim_terminal(pid_t session);
  void claim_terminals();
  void make_threads(GrownProcess& p);
  void set_attributes(GrownProcess& p);  // paths, names, prctl, limits, locks
  void set_signals(GrownProcess& p);     // actions, stacks, timers, and last what was pending
  void set_credentials(GrownProcess& p);
  void set_owners();  // F_SETOWN of shared handles, once
  // What came at sockets of the pod's holder while nobody could be told: after all have their signals.
  void tell_owners(const std::map<int64_t, UniqueFd>& held);
  // Each thread at its registers, in the agent's park: it goes home when the pod is committed.
  void park(GrownProcess& p);
  // After the commit: the agent's memory removed, the real registers set, the process let go.
  void let_go(GrownProcess& p);

  // What could not be had back and was not worth failing for, in words.
  std::vector<std::string> notes;

 private:
  void set_thread_state(GrownProcess& p, size_t index);
  void apply_outside(GrownProcess& p);
  void limit_credentials(GrownProcess& p, size_t thread);
  bool set_limit(GrownProcess& p, size_t which, const rlimit64& limit);
  void queue_pending(GrownProcess& p);
  void set_async(int64_t handle, int flags);
  void tell_owner(const Value& record, int signal, int code, int16_t events);
  int fd_of(int64_t handle);
  void remove_region(GrownProcess& p, const Borrowed& leader);

  const Value& plan_;
  Tree& tree_;
  RebuildContext& context_;
  XstateLayout from_, here_;
};

}  // namespace virt
