// The two long jobs, as a supervisor drives them step by step. All methods of one job must be called on one
// thread, because ptrace requests are bound to it (the binding gives each job a thread of its own).
// Destroying a job at any point leaves the pod running (capture) or gone with the image untouched (rebuild).
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/value.h"
#include "checkpoint/capture.h"
#include "checkpoint/rebuild.h"
#include "engine/control_client.h"
#include "engine/launch.h"
#include "init/protocol.h"
#include "move/wire.h"

namespace virt {

// Read by other threads while a job runs.
struct Progress {
  std::atomic<const char*> phase{"start"};
  std::atomic<uint64_t> done_bytes{0}, total_bytes{0};
  std::atomic<bool> stop{false};
};

class CaptureJob {
 public:
  // {socket, drop: [kinds], tcp: {otherwise, rules: [{policy, address?, port?}]}, hold, leave, freezeTimeoutMs, threads}.
  // leave: relays to holders elsewhere stand still, for another host to go on
  // `wire`: to the host that the pod moves to, or null.
  CaptureJob(const Value& options, std::shared_ptr<Wire> wire, Progress& progress);

  // A moment's stop: surveys, and watches from now on what the pod's processes write. The record as survey() gives it.
  Value track();
  // A round of pre-copy over the wire, while the pod runs. {dirtyBytes, watched}
  Value copy();
  // Freezes and surveys. The result has blockers, and all of the image but the pages.
  Value survey();
  // Carried files into the directory, pages there too (read back), or over the wire; gives the completed record.
  Value read(int directory);
  // Other descriptors in place of those that processes have; after survey().
  void remap(const Value& changes);
  void thaw();
  // Gives init what leads to outside, to keep when the pod is released, under a socket of this name beside its own. How many
  // there are; with none nothing is done. `reach`: {address, port}, where other hosts find it, or null. {count, port?, far: [{address, port,
  // key, state, listeners}], repaired: [[handle, its state, or null if it has ended meanwhile]]}
  Value hold(const std::string& name, const std::string& key, const Value& reach);
  // The image is complete and safe: init kills the pod.
  void release();

 private:
  ControlClient control_;
  Progress& progress_;
  UniqueFd terminal_;
  FarWays look_far(bool freeze);
  void freeze_and_survey();
  void note_far_listeners();
  Value read_silent(const std::vector<const Handle*>& held);

  CaptureOptions options_;
  bool leave_ = false;
  std::shared_ptr<Wire> wire_;
  std::unique_ptr<Precopy> precopy_;  // longer than any capture
  Value far_ = Value::list();         // relays that stand still: {address, port, key, state, listeners}
  std::vector<std::vector<protocol::FarListener>> far_listeners_;  // of each
  std::unique_ptr<Capture> capture_;
  Value record_;
};

class RebuildJob {
 public:
  // The plan: the image's record plus {grow, seedPid, directory, held?: {socket, key, ids: [[number there, handle]]},
  // far?: [{address, port, key, state?, sockets: [[handle, channel]], listeners?: [[number there, handle]]}]}; `launch` is what virt-init needs.
  RebuildJob(Value plan, protocol::LaunchPlan launch, LaunchFiles files, Progress& progress);

  // Makes the pod, all of it held. {initPid, notes}
  Value build();
  // The final word. Gives our control connection.
  UniqueFd commit();

 private:
  std::map<int64_t, UniqueFd> take_held();
  std::map<int64_t, UniqueFd> make_far();
  void give_silent();

  Value plan_;
  protocol::LaunchPlan launch_;
  LaunchFiles files_;
  Progress& progress_;
  UniqueFd directory_;
  std::unique_ptr<ControlClient> control_, holder_;
  UniqueFd control_dup_;
  std::unique_ptr<Rebuild> rebuild_;
};

}  // namespace virt
