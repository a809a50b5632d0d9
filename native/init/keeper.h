// The keeper: what PID 1 of a pod does while the pod lives. One thread, one poll loop: children to reap,
// supervisors to answer, the terminal and the pipes to serve, the exit status to write down.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "init/connection.h"
#include "init/console.h"
#include "init/far_sockets.h"
#include "init/holder.h"
#include "init/interposer.h"
#include "init/protocol.h"
#include "init/spawn.h"
#include "init/step.h"
#include "sys/fd.h"
#include "sys/tcp_silence.h"

namespace virt::init {

class Keeper {
 public:
  // `socket_dir`: where the control socket is, as the host shows it. `own_program`: virt-init's file, where a pod is to be
  // rebuilt. `host_proc`: the host's /proc. `interposer` outlives the keeper.
  Keeper(protocol::LaunchPlan plan, UniqueFd state_dir, UniqueFd listener, UniqueFd first_supervisor,
         UniqueFd socket_dir, UniqueFd own_program, UniqueFd host_proc, Interposer& interposer);

  // Starts the program, or waits to be told what to rebuild. Returns init's exit code when the pod has ended.
  int run();
  // What the pod left behind when it was detached, if it had anything to hold.
  std::unique_ptr<Holder> take_holder() { return detached_ ? std::move(holder_) : nullptr; }

 private:
  Step prepare();
  Step start_program();
  void loop();
  bool poll_once();
  void fail(const Step& step);

  void accept_supervisor();
  void serve(Connection& c);
  void handle(Connection& c, const Frame& f);
  void handle_signal(Connection& c, const Frame& f);
  void handle_exec(Connection& c, const Frame& f);
  void handle_attach(Connection& c, const Frame& f);
  void handle_lock(Connection& c, const Frame& f);
  void handle_open(Connection& c, const Frame& f);
  void handle_seed(Connection& c, const Frame& f);
  void handle_release(Connection& c, const Frame& f);
  void handle_hold(Connection& c, const Frame& f);
  void handle_relay(Connection& c, const Frame& f);
  void handle_far(Connection& c, const Frame& f);
  void handle_silent(Connection& c, const Frame& f);
  static void handle_socket(Connection& c, const Frame& f);
  void handle_commit(Connection& c, const Frame& f);
  void handle_hook(Connection& c, const Frame& f);
  void handle_answer(Connection& c, const Frame& f);
  void ask_hooks();
  void drop(Connection& c);

  void reap();
  void pump(Console& console, int id, int stream);
  void pump_all(Console& console, int id);
  void drain();
  void hang_up();
  void tell(protocol::Type type, std::string_view payload);
  void record(const std::string& text);
  void end_everything();
  [[nodiscard]] protocol::Status status() const;
  [[nodiscard]] int viewers_of(int console) const;
  void note_streams(const int fds[3]);
  [[nodiscard]] bool isolated() const { return (plan_.flags & protocol::kPlanIsolated) != 0; }
  [[nodiscard]] Sockets sockets() const {
    return (plan_.flags & protocol::kPlanNoNetwork) != 0 ? Sockets::kSeparated : Sockets::kAny;
  }
  // `plan` is a LaunchPlan or an ExecPlan.
  template <typename Plan>
  [[nodiscard]] Program program_of(const Plan& plan) const {
    Program p;
    p.filtered = interposer_.runs();
    p.isolated = isolated();
    p.sockets = sockets();
    p.cwd = plan.cwd;
    p.argv = plan.argv;
    p.env = plan.env;
    p.terminal = plan.stdio == protocol::Stdio::kTerminal;
    p.open_files = plan_.open_files;
    return p;
  }

  protocol::LaunchPlan plan_;
  UniqueFd state_dir_, listener_, signals_, socket_dir_, own_program_, host_proc_;
  std::vector<std::unique_ptr<Connection>> connections_;
  std::vector<std::unique_ptr<Console>> consoles_;  // 0: the first program's, if it has one
  Log log_;
  Interposer& interposer_;
  std::unique_ptr<Holder> holder_;
  std::unique_ptr<FarSockets> far_sockets_;
  struct Silent {
    UniqueFd socket;
    SpokenOptions spoken;
  };
  std::vector<Silent> silent_;  // connections of a pod that is being rebuilt
  std::vector<protocol::Status::Stream> streams_;

  pid_t first_pid_ = 0;
  bool first_ended_ = false;
  int first_status_ = 0;
  bool rebuilding_ = false;
  bool ended_ = false;  // no process is left
  bool detached_ = false;
  volatile int32_t* commit_ = nullptr;  // shared with every process of a pod that is being rebuilt
};

}  // namespace virt::init
