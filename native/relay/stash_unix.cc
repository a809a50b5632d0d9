#include "relay/stash_unix.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <string>
#include <utility>

namespace virt {
namespace {

constexpr socklen_t kNameAt = offsetof(sockaddr_un, sun_path);

bool named(const StashAddress& a) { return a.size > kNameAt; }

const char* name_of(const StashAddress& a) { return reinterpret_cast<const char*>(&a.storage) + kNameAt; }

// The path that the address is, or nothing: then it is abstract, or there is none.
std::string path_of(const StashAddress& a) {
  if (!named(a)) return {};
  return {name_of(a), strnlen(name_of(a), a.size - kNameAt)};
}

bool valid(const StashAddress& a) {
  constexpr size_t kLongest = sizeof(sockaddr_un::sun_path);
  if (!named(a)) return true;
  // The kernel says the length of a path with the NUL that may have had no room.
  const std::string path = path_of(a);
  return a.family() == AF_UNIX && (path.empty() ? a.size <= kNameAt + kLongest : path.size() <= kLongest);
}

// bind(2) keeps the very bytes it is given, so the path must be there from our root, or where we are. It is needed only
// until somebody has connected.
class Place {
 public:
  explicit Place(std::string path) : path_(std::move(path)) {}
  Place(const Place&) = delete;
  Place& operator=(const Place&) = delete;
  ~Place() {
    if (path_.empty()) return;
    unlink(path_.c_str());
    for (size_t slash = path_.rfind('/'); slash != std::string::npos && slash > 0;
         slash = path_.rfind('/', slash - 1)) {
      if (rmdir(path_.substr(0, slash).c_str()) != 0) break;
    }
  }
  void make() const {
    for (size_t slash = path_.find('/', 1); slash != std::string::npos; slash = path_.find('/', slash + 1)) {
      mkdir(path_.substr(0, slash).c_str(), 0700);  // what cannot be made, bind(2) will tell
    }
  }

 private:
  std::string path_;
};

// What bind(2) and connect(2) take: of a path only the path, whatever follows it, and at most 108 bytes of it.
socklen_t size_of(const StashAddress& a) {
  const std::string path = path_of(a);
  return path.empty() ? a.size : static_cast<socklen_t>(kNameAt + path.size());
}

int name_socket(const UniqueFd& socket, const StashAddress& name) {
  // Without a name, bind(2) would choose an abstract one.
  if (!named(name)) return 0;
  return bind(socket.get(), name.get(), size_of(name)) == 0 ? 0 : errno;
}

int connect_to(const UniqueFd& socket, const StashAddress& name) {
  return connect(socket.get(), name.get(), size_of(name)) == 0 ? 0 : errno;
}

UniqueFd make(int type) { return UniqueFd(socket(AF_UNIX, type | SOCK_CLOEXEC, 0)); }

// Who has a name is found by it: `here` listens on `here_name` and accepts `there`, which is `there_name`.
int connected(int type, const StashAddress& here_name, const StashAddress& there_name, UniqueFd* here,
              UniqueFd* there) {
  const UniqueFd listener = make(type);
  *there = make(type);
  if (!listener || !*there) return errno;
  if (const int error = name_socket(listener, here_name); error != 0) return error;
  if (const int error = name_socket(*there, there_name); error != 0) return error;
  if (listen(listener.get(), 1) != 0) return errno;
  if (const int error = connect_to(*there, here_name); error != 0) return error;
  here->reset(accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  return *here ? 0 : errno;
}

// Both send to one another, as far as they have names: nobody can answer one who has none.
int datagram_pair(const StashRequest& request, StashPair* made) {
  if (!named(request.peer)) return EINVAL;
  made->program = make(SOCK_DGRAM);
  made->relay = make(SOCK_DGRAM);
  if (!made->program || !made->relay) return errno;
  if (const int error = name_socket(made->relay, request.peer); error != 0) return error;
  if (const int error = name_socket(made->program, request.local); error != 0) return error;
  if (const int error = connect_to(made->program, request.peer); error != 0) return error;
  return named(request.local) ? connect_to(made->relay, request.local) : 0;
}

int stream_pair(const StashRequest& request, StashPair* made) {
  if (named(request.peer)) {
    return connected(request.type, request.peer, request.local, &made->relay, &made->program);
  }
  if (named(request.local)) {
    return connected(request.type, request.local, request.peer, &made->program, &made->relay);
  }
  int ends[2];
  if (socketpair(AF_UNIX, request.type | SOCK_CLOEXEC, 0, ends) != 0) return errno;
  made->program.reset(ends[0]);
  made->relay.reset(ends[1]);
  return 0;
}

}  // namespace

int unix_pair(const StashRequest& request, int no_files, StashPair* made) {
  if (!valid(request.local) || !valid(request.peer)) return EINVAL;
  const Place local(path_of(request.local)), peer(path_of(request.peer));
  const bool local_path = !path_of(request.local).empty(), peer_path = !path_of(request.peer).empty();
  if ((local_path || peer_path) && no_files != 0) return no_files;
  local.make();
  peer.make();
  int error = ESOCKTNOSUPPORT;
  if (request.type == SOCK_STREAM || request.type == SOCK_SEQPACKET) error = stream_pair(request, made);
  if (request.type == SOCK_DGRAM) error = datagram_pair(request, made);
  // Another room has other abstract names, but the same files: this path is that of a directory.
  const bool abstract = (named(request.local) && !local_path) || (named(request.peer) && !peer_path);
  if (error == EADDRINUSE && !abstract) return EINVAL;
  if (error == 0 && fcntl(made->relay.get(), F_SETFL, O_NONBLOCK) != 0) error = errno;
  return error;
}

}  // namespace virt
