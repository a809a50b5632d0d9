// What the kinds of handle share during a capture: whom a pid belongs to, which files and objects the image
// refers to, what could not be carried.
#pragma once

#include <array>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/value.h"
#include "resources/blocker.h"
#include "resources/far_socket.h"
#include "resources/handle.h"
#include "resources/socket_options.h"
#include "sys/sock_diag.h"

namespace virt {

// A file's identity while the pod is frozen.
using Inode = std::pair<uint64_t, uint64_t>;  // st_dev, st_ino
inline Inode inode_of(const struct stat& st) { return {st.st_dev, st.st_ino}; }

// Shared memory that several mappings or fds show: memfd, shared anonymous memory, SysV segments. Its pages
// are read by checkpoint/, once.
struct MemoryObject {
  int id = 0;
  std::string kind;  // "memfd", "anonymous", "sysv"
  Inode inode;
  uint64_t size = 0;
  int fd = -1;   // a descriptor of it in our table (owned by a handle), or -1: read through a mapping
  Value record;  // what the image says of it
};

class CaptureContext {
 public:
  CaptureContext(pid_t init_host_pid, std::vector<Inode> streams, int terminal_master,
                 unsigned terminal_index);

  // --- the pod
  [[nodiscard]] pid_t init_host_pid() const { return init_host_pid_; }
  // The pod's pid for a host pid (of a process, thread, group or session); 0 if it is not in the pod.
  std::function<int(pid_t host)> to_pod_pid;
  // 0, 1 or 2 if this is what the launcher gave (or an exec'd program's, `*of_exec`).
  [[nodiscard]] std::optional<int> launcher_stream(const struct stat& st, bool* of_exec) const;
  [[nodiscard]] int terminal_master() const { return terminal_master_; }
  [[nodiscard]] unsigned terminal_index() const { return terminal_index_; }
  [[nodiscard]] uint64_t devpts_device() const { return devpts_device_; }

  // --- all handles, for kinds whose parts refer to each other. Filled before the first capture() call.
  std::vector<Handle>* handles = nullptr;
  [[nodiscard]] Handle* handle_of(pid_t host_pid, int host_fd);
  const std::map<uint64_t, UnixSocketInfo>& unix_sockets();
  // A socket (socket(2)) of the pod's network namespace, to ask or to compare with.
  std::function<UniqueFd(int family, int type, int protocol)> make_socket;
  // The options of one that is like another as it was when it was made; asked once for each sort of socket.
  const OptionValues& fresh_options(int fd);

  // --- what the image refers to
  // A file that is open or mapped, by its path inside the pod; the same file gives the same id. Reports a
  // blocker (and gives -1) if the path does not lead to it any more. An unlinked file is carried.
  int file(const std::string& shown_path, const struct stat& st, int fd, const Blocker& about);
  [[nodiscard]] Value files() const;
  // Files whose content goes into the image: id and a descriptor to read it from.
  struct Carried {
    int id;
    UniqueFd fd;
    uint64_t size;
  };
  std::vector<Carried>& carried() { return carried_; }

  int object(const std::string& kind, const Inode& inode, const std::function<Value()>& make);
  [[nodiscard]] std::optional<int> find_object(const Inode& inode) const;
  [[nodiscard]] Value objects() const;
  // Adds to an object what could only be read by taking it out, at the very end.
  std::vector<std::function<void()>> read_last;
  [[nodiscard]] Value& object_record(int id) { return objects_.at(static_cast<size_t>(id)); }

  MemoryObject& memory(const std::string& kind, const Inode& inode, uint64_t size);
  std::deque<MemoryObject>& memories() { return memories_; }

  // --- what stands in the way, or was accepted
  void block(Blocker blocker);
  void block(const Handle& handle, const std::string& code, const std::string& reason,
             const std::string& hint);
  std::vector<Blocker> blockers;
  std::set<std::string> drop;  // kinds the user is willing to lose
  std::vector<std::string> accepted;
  // What becomes of a connection to outside: the first rule that fits its peer, else `otherwise`.
  struct TcpPolicy {
    struct Rule {
      std::string policy, address;  // no address: any
      int port = 0;                 // 0: any
    };
    std::vector<Rule> rules;
    std::string otherwise = "hold";  // "hold", "close", "reconnect", "repair"
    [[nodiscard]] const std::string& of(const std::string& address, int port) const;
  };
  TcpPolicy tcp_policy;
  bool holds = false;        // the pod's init keeps what leads to outside
  bool own_network = false;  // nothing outside reaches what the pod has bound, and it gets another network
  // The very handle is there again after a reattach on this host; whatever its record says is for elsewhere. False if nothing
  // is held. `peer`: the inode of a unix socket's other end.
  bool hold(Handle& handle, HeldAs as, uint64_t peer = 0);
  // Whether the state of TCP connections may be taken along (tcp_repair.h), by us and by the pod's init; asked once.
  std::optional<bool> may_repair;
  FarWays far;
  std::set<std::string> remapped;  // paths of the pod where something else is, by rule

  // stat(2) of a path inside the pod.
  bool stat_in_pod(const std::string& path, struct stat* st) const;

 private:
  pid_t init_host_pid_;
  std::vector<Inode> streams_;
  int terminal_master_;
  unsigned terminal_index_;
  uint64_t devpts_device_ = 0;
  std::vector<Value> files_;
  std::map<Inode, int> file_ids_;
  std::vector<Carried> carried_;
  std::vector<Value> objects_;
  std::map<Inode, int> object_ids_;
  std::deque<MemoryObject> memories_;  // references to them stay good
  std::optional<std::map<uint64_t, UnixSocketInfo>> unix_sockets_;
  std::map<std::array<int, 3>, OptionValues> fresh_options_;  // by family, type, protocol
};

// True if the link text shows that the name is gone ("/x (deleted)"), and the text without that.
bool shown_deleted(const std::string& link);
std::string without_deleted(const std::string& link);

}  // namespace virt
