// Turns calls into effects. A call that is let pass tells nobody how it ended: so the recorder looks at what the call
// would change before it is made, and again afterwards. What has changed is an effect; what has not when its thread is
// at another call already, had none.
// Lives in virt-init, inside the pod's namespaces. Several threads may use it: those that answer, and one that catches up.
// No exceptions.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <list>
#include <mutex>
#include <set>
#include <string>
#include <unordered_map>

#include "interpose/call.h"
#include "interpose/journal.h"
#include "interpose/policy.h"

namespace virt {

// How a call that was let pass has ended, by what it was about.
enum class Outcome {
  open,     // not yet, or never
  done,     // it has had its effect
  nothing,  // it cannot any more
};

// What a path leads to.
struct Seen {
  bool there = false;
  uint64_t device = 0, inode = 0;
  uint32_t mode = 0, uid = 0, gid = 0;
  int64_t size = 0;
};

// A call that was let pass, and what it would change as it was before.
struct Watched {
  Call call;
  Seen before, before2;
  std::string asked;        // the address the program asked for, where it was given another
  int64_t since_ns = 0;     // CLOCK_MONOTONIC
  bool over = false;        // its thread has come to another call
  bool looked_at = false;   // by some thread, just now
  uint64_t round = 0;       // of settle_each(), in which it was looked at last
  uint64_t looked_for = 0;  // the question before whose answer it was looked at last
};

class Recorder {
 public:
  Recorder(Recording recording, Journal& journal) : kinds_(recorded_kinds(recording)), journal_(journal) {}

  // Whether calls of this kind are recorded, where no rule says otherwise.
  [[nodiscard]] bool wants(CallKind kind) const { return (kinds_ & kind_bit(kind)) != 0; }
  // While a call is being answered. At its beginning its thread's former call is over, and what others did to the same names
  // is looked at before this one can change it again. Gives the call its order.
  class Answering {
   public:
    Answering(Recorder& recorder, Call* call) : recorder_(recorder) { order_ = recorder.begin(call); }
    ~Answering() { recorder_.end(order_); }
    Answering(const Answering&) = delete;
    Answering& operator=(const Answering&) = delete;

   private:
    Recorder& recorder_;
    uint64_t order_ = 0;
  };
  // Before the call is let pass. False if it can have no effect; *watched then still has the call.
  bool look(Call call, Watched* watched);
  using List = std::list<Watched>;
  // Just before it is let pass: others know of it from here on, and wait until it was.
  List::iterator watch(Watched watched);
  // It was let pass, or was not after all: its thread has gone.
  void passed(List::iterator watched, bool after_all);
  // Writes down a call that is answered in the kernel's place: error 0, or why it was refused.
  void write_answered(const Call& call, int error, const std::string& asked, bool created = false);
  // Writes down what is known, and looks again at calls that were let pass; for the last time if `all` are over. False if
  // the journal has no room.
  bool catch_up(bool all);
  // Whether something waits for catch_up().
  [[nodiscard]] bool behind();
  // How many effects have been written down.
  [[nodiscard]] uint64_t written() const { return written_; }

 private:
  uint64_t begin(Call* call);
  void end(uint64_t order);
  using Lock = std::unique_lock<std::mutex>;
  // Looks at it again, without the lock, and lets go of it if it is known how it ended, or it is for the `last` time. True
  // if so.
  bool settle(Lock& lock, List::iterator watched, bool last);
  void write_done(const Watched& watched);
  void settle_named(Lock& lock, const std::string& name, const Call& before);
  bool settle_each(Lock& lock, uint64_t until, bool sockets,
                   const std::function<bool(Lock&, List::iterator)>& is_last);
  void settle_before_move(Lock& lock, uint64_t order);
  [[nodiscard]] bool has_kept() const { return !kept_.empty() || writing_ > 0; }
  void forget(List::iterator watched, bool keep = false);
  void write_kept(Lock& lock);
  bool flush(uint64_t until, bool now);
  // The oldest that nobody looks at.
  [[nodiscard]] List::iterator first_free();
  void write(const Call& call, bool created, int error, const std::string& asked);
  bool is_news(const Call& call, const std::string& address, int port);

  const KindSet kinds_;
  Journal& journal_;
  std::atomic<uint64_t> written_ = 0;
  std::mutex mutex_;                // all below; held for no system call
  std::condition_variable looked_;  // something is looked at no more
  uint64_t newest_ = 0;             // the order of the call that was asked about last
  std::set<uint64_t> answering_;    // of those between begin() and end()
  List watched_;
  List kept_;  // that had their effect, and are not written down yet: their callers do not wait for that
  int writing_ = 0;  // how many threads are writing some down
  uint64_t rounds_ = 0;
  int64_t flushed_ns_ = 0;                                        // of the thread that catches up
  std::unordered_multimap<std::string, List::iterator> by_name_;  // last parts of their paths
  std::unordered_map<pid_t, List::iterator> last_of_thread_;
  std::unordered_map<std::string, int64_t> sent_;  // who sent where, when it was last written down
};

}  // namespace virt
