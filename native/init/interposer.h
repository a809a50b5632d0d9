// The interposer in virt-init: it answers the kernel's questions about the calls that the pod's filter selected, by rules,
// by hooks of a supervisor, or by letting them pass, and keeps the journal. It serves every process of the pod, whoever
// watches, and without a supervisor: where a hook is asked and nobody is there, the rule's default applies.
//
// Threads: some read the questions and answer what needs no waiting, so that callers on several CPUs need not come to one;
// one catches up with the journal and with hooks that do not answer; calls made in a caller's place have one each, for as
// long as they take.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "interpose/asks.h"
#include "interpose/filter.h"
#include "interpose/policy.h"
#include "interpose/recorder.h"
#include "interpose/rules.h"
#include "interpose/socket_names.h"
#include "sys/fd.h"

namespace virt::init {

class Interposer {
 public:
  Interposer();
  ~Interposer();
  Interposer(const Interposer&) = delete;
  Interposer& operator=(const Interposer&) = delete;

  struct Setup {
    Recording recording = Recording::kNone;
    KindSet covered = 0;  // beside what recording and rules need: for rules that come later, and hooks
    std::string rules;    // RuleSet
    int state_dir = -1;
    Sockets sockets = Sockets::kAny;
    UniqueFd host_proc;    // a directory of the host's /proc
    bool paused = false;   // everything passes and nothing is recorded, until go_on()
    bool hooked = false;   // a supervisor answers from the start
    bool errands = false;  // run_unfiltered() with all our rights
  };
  // Starts the threads, then puts the filter on the calling one, so that everything the pod becomes inherits it and the
  // threads themselves stay free. Does nothing if there is nothing to interpose. 0 or errno (EINVAL: no rules).
  int start(Setup setup);
  void go_on() { paused_ = false; }
  // When nothing runs any more: returns when everything that has happened is in the journal. 0, ETIMEDOUT, or ENOSPC: the
  // journal could not be written.
  int catch_up();
  [[nodiscard]] bool runs() const { return runs_; }
  // Runs it where threads may be started: the keeper's thread has the filter itself, and so would theirs. Waits for it;
  // gives what it gives (0 or errno). One at a time.
  int run_unfiltered(std::function<int()> errand);

  // Other rules from now on. 0, EINVAL (no rules), or EOPNOTSUPP: they need calls that the filter does not select.
  int change_rules(std::string_view bytes);
  // Readable when hooks are to be told something.
  [[nodiscard]] int news_fd() const { return news_.get(); }
  std::vector<std::string> take_news();
  // A supervisor answers hooks from now on, or none does: then what waits gets its default.
  void set_hooked(bool hooked);
  // A hook has answered; `fd` is what it injects.
  void answered(const HookAnswer& answer, UniqueFd fd);

 private:
  struct Work;

  static void* answer_thread(void* self);
  static void* catch_up_thread(void* self);
  static void* work_thread(void* work);
  static void* errand_thread(void* self);
  void do_errand(bool wait);
  void answer_questions();
  void answer_one(const Question& question);
  void keep_up();
  int wait_ms(int* pause_ms);
  void let_pass(Call call, bool record);
  void apply(const Rule* rule, Call call);
  void apply_aside(Ask ask);
  void put_aside(std::unique_ptr<Work> work);
  void start_what_is_aside();
  void start_work(std::unique_ptr<Work> work);
  void work(Work& work);
  void stir();
  std::shared_ptr<const RuleSet> rules();

  Setup setup_;
  KindSet selected_ = 0;
  pid_t own_pid_ = 0;
  bool runs_ = false, real_root_ = false;
  std::atomic<bool> paused_ = false, hooked_ = false, idle_ = true, full_ = false;
  std::atomic<int> working_ = 0;
  std::atomic<uint64_t> requests_ = 0, done_ = 0;  // to catch up
  UniqueFd handover_;                              // the listener's number comes through here
  UniqueFd asked_, caught_up_, news_, stir_;       // eventfd(2)
  std::unique_ptr<Listener> listener_;
  std::unique_ptr<CallReader> reader_;
  std::unique_ptr<Journal> journal_;
  std::unique_ptr<Recorder> recorder_;
  SocketNames names_;
  Asks asks_;
  std::mutex aside_mutex_;
  std::vector<std::unique_ptr<Work>> aside_;  // for the thread that catches up to start
  std::mutex errand_mutex_;
  std::condition_variable errand_given_, errand_done_;
  std::function<int()> errand_;
  int errand_result_ = 0;
  std::mutex rules_mutex_;
  std::shared_ptr<const RuleSet> rules_;
};

}  // namespace virt::init
