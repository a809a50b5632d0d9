// What the kinds of handle share during a rebuild. Handles are made in the seed, the process the tree is
// grown from, by remote system calls; every process of the pod inherits them and dups them to the numbers it
// had. All descriptors in the seed lie above the numbers any program uses.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "base/value.h"
#include "sys/fd.h"
#include "trace/agent.h"

namespace virt {

class RebuildContext {
 public:
  RebuildContext(Agent& agent, Borrowed seed, UniqueFd seed_pidfd, int first_fd);

  // --- the plan's tables
  std::vector<Value> files, objects;
  [[nodiscard]] const Value& file(int64_t id) const;
  [[nodiscard]] const Value& object(int64_t id) const;

  // --- remote system calls in the seed
  // The lowest number for descriptors of ours: above all that any process uses.
  [[nodiscard]] int first_fd() const { return first_fd_; }
  [[nodiscard]] Batch batch() const { return Batch(agent_->site()); }
  void run(Batch& b) { agent_->run(seed_, b); }
  template <typename... Args>
  int64_t call(long number, Args... args) {
    return agent_->call(seed_, number, args...);
  }
  // Runs a batch whose call `index` gives a descriptor, and moves that to its place in the seed.
  int run_for_fd(Batch& b, size_t index, const char* call, const char* doing);
  // open(2) inside the pod.
  int open_in_pod(const std::string& path, int flags, int mode = 0);
  // open(2) through /proc/self/fd: a new description of the same thing with other flags.
  int reopen(int seed_fd, int flags);
  void close(int seed_fd);
  // Memory of the seed that holds `bytes`, for what a batch has no room for; and its end.
  RemoteAddress lend(const std::string& bytes);
  void take_back(RemoteAddress address, size_t size);
  // A descriptor of ours, in the seed's table; many at once are much cheaper.
  int push(int fd) { return push_all({fd}).front(); }
  std::vector<int> push_all(const std::vector<int>& fds);
  // The very description, in our table.
  [[nodiscard]] UniqueFd take(int seed_fd) const;

  // --- things several handles share
  // Seed descriptors of an object by role ("read", "write", "a", "b", "master"), made by `make` the first
  // time.
  using Roles = std::map<std::string, int>;
  Roles& object_fds(int64_t id, const std::function<Roles(const Value& record)>& make);
  // The seed's descriptor of a file opened for `access` (O_RDONLY, O_RDWR); made once.
  int mapped_file(int64_t id, int access);
  // An unlinked file's content, from the image.
  std::function<UniqueFd(const Value& file)> open_carried;
  // memfd of a shared memory object; made and filled by checkpoint/.
  std::map<int64_t, int> memory_fds;
  // Seed descriptors of datagram sockets by the names they are bound to.
  std::map<std::string, int> unix_names;
  // The master of the pod's own terminal, in our table; invalid if it has none.
  UniqueFd terminal_master;

  // The seed's descriptor of a handle, made now if it does not stand yet.
  [[nodiscard]] int handle_fd(int64_t id);
  std::map<int64_t, int> handle_fds;
  // Those that were made when the tree stood already: processes did not inherit them.
  std::set<int64_t> late_handles;
  // Work that needs all handles (still in the seed, before the tree is grown).
  std::vector<std::function<void()>> when_all_stand;
  // … and after that: closing the ends that were closed.
  std::vector<std::function<void()>> at_last;
  // TCP connections that say and hear nothing before the commit (tcp_repair.h). `whole`: it is the very one.
  struct Silent {
    const Value* record;
    UniqueFd fd;
    bool whole;
  };
  std::vector<Silent> silent;
  bool addresses_come_later = false;
  // What could not be had back as it was, in words.
  std::vector<std::string> notes;
  // Makes a handle now if it does not stand yet; set by checkpoint/.
  std::function<int(int64_t id)> make_handle;

 private:
  int make_unlinked(const Value& file, int access);

  Agent* agent_;
  Borrowed seed_;
  UniqueFd pidfd_;
  int first_fd_;
  std::map<int64_t, Roles> roles_;
  std::map<std::pair<int64_t, int>, int> mapped_;
  std::map<int64_t, int> unlinked_;
};

// Sets what every open file has besides its kind: status flags and position are the kind's business, signals
// and owner are set when the pids exist.
void set_status_flags(int fd, int flags);

}  // namespace virt
