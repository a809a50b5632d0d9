// Unix sockets (unix(7)): pairs and connections inside the pod with what waits in them, bound and listening
// ones. A stream whose other end lies outside the pod is kept by the pod's init (unless the launcher gave it,
// launcher_stream.cc); elsewhere the program finds it closed.
#include "resources/unix_socket.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <algorithm>
#include <cerrno>
#include <optional>
#include <string>

#include "base/error.h"
#include "resources/capture_context.h"
#include "resources/far_socket.h"
#include "resources/kinds.h"
#include "resources/rebuild_context.h"
#include "resources/socket_options.h"
#include "resources/unix_name.h"
#include "resources/unix_queue.h"

namespace virt {
namespace {

constexpr int kEstablished = 1, kListening = 10;  // the kernel lends TCP's states to unix sockets
constexpr int kReceiveShutdown = 1, kSendShutdown = 2;
constexpr uint64_t kFarPeer = UINT64_MAX;  // no inode: a relay has the other end

int int_option(int fd, int name) {
  int value = -1;
  socklen_t size = sizeof value;
  getsockopt(fd, SOL_SOCKET, name, &value, &size);
  return value;
}

bool recognise(const Handle& h, const CaptureContext&) {
  return S_ISSOCK(h.st.st_mode) && int_option(h.dup.get(), SO_DOMAIN) == AF_UNIX;
}

const char* type_name(int type) {
  return type == SOCK_STREAM ? "stream" : type == SOCK_DGRAM ? "datagram" : "seqpacket";
}

int type_number(const std::string& name) {
  if (name == "stream") return SOCK_STREAM;
  if (name == "datagram") return SOCK_DGRAM;
  if (name == "seqpacket") return SOCK_SEQPACKET;
  throw BadValue("a unix socket of type '" + name + "'");
}

const Handle* handle_with_inode(CaptureContext& c, uint64_t inode) {
  for (const Handle& h : *c.handles) {
    if (S_ISSOCK(h.st.st_mode) && h.st.st_ino == inode) return &h;
  }
  return nullptr;
}

const Handle* listener_named(CaptureContext& c, const std::string& name) {
  for (const Handle& h : *c.handles) {
    if (!S_ISSOCK(h.st.st_mode) || int_option(h.dup.get(), SO_DOMAIN) != AF_UNIX) continue;
    if (int_option(h.dup.get(), SO_ACCEPTCONN) == 1 && own_unix_name(h.dup.get()) == name) return &h;
  }
  return nullptr;
}

// A datagram socket that sends to a name by default: its peer does not send to it, and may be made after it.
void capture_sender(Handle& h, CaptureContext& c, const Handle* peer, const std::string& name) {
  std::string to = name;
  if (peer != nullptr && name[0] != '\0') {
    to = socket_file_path(name, *peer, c);
    struct stat st {};
    if (to.empty() || !c.stat_in_pod(to, &st) || !S_ISSOCK(st.st_mode)) {
      c.block(h, "ERR_FILE_REPLACED",
              "a datagram socket connected to a socket whose name is gone (" + name + ")",
              "let the program connect it again");
    }
  }
  h.record.set("state", "unconnected").set("sendsTo", Value::bytes(to.data(), to.size()));
}

void capture_connected(Handle& h, CaptureContext& c, const UnixSocketInfo& info, int type) {
  const Handle* peer = info.peer != 0 ? handle_with_inode(c, info.peer) : nullptr;
  const bool closed =
      peer == nullptr && info.peer != kFarPeer && (info.peer == 0 || !c.unix_sockets().contains(info.peer));
  const std::string name = peer_unix_name(h.dup.get());
  // Two that send to each other are a pair, whatever names they have.
  const bool mutual = peer != nullptr && c.unix_sockets().at(info.peer).peer == h.st.st_ino;
  if (type == SOCK_DGRAM && !closed && !mutual && !name.empty()) return capture_sender(h, c, peer, name);
  if (peer == nullptr && !closed) {
    h.record.set("state", "outside");
    if (info.shutdown != 0) h.record.set("shutdown", static_cast<int>(info.shutdown));
    if (!name.empty()) h.record.set("peerName", Value::bytes(name.data(), name.size()));
    if (const std::string own = own_unix_name(h.dup.get()); !own.empty())
      h.record.set("name", Value::bytes(own.data(), own.size()));
    if (c.hold(h, HeldAs::connection)) return;
    c.block(h, "ERR_CONNECTION",
            "a unix socket connected to a process outside the pod" +
                (name.empty() || name[0] == '\0' ? "" : " (" + name + ")"),
            "end the connection first, or accept its loss with --drop unix-socket");
    return;
  }
  h.record.set("state", "connected");
  if (info.shutdown != 0) h.record.set("shutdown", static_cast<int>(info.shutdown));
  const uint64_t first = peer != nullptr ? std::min<uint64_t>(h.st.st_ino, info.peer) : h.st.st_ino;
  const std::string own = own_unix_name(h.dup.get()), theirs = name;
  const int id = c.object("unix-pair", Inode{h.st.st_dev, first}, [&] {
    Value o = Value::map();
    o.set("type", type_name(type));
    return o;
  });
  h.record.set("object", id);
  h.record.set("end", peer == nullptr || h.st.st_ino == first ? "a" : "b");
  if (peer == nullptr) h.record.set("peerClosed", true);
  // The accepted side carries the listener's name, the connecting side sees it as its peer's.
  if (!own.empty()) h.record.set("name", Value::bytes(own.data(), own.size()));
  if (!theirs.empty()) h.record.set("peerName", Value::bytes(theirs.data(), theirs.size()));
  const std::string& called = own.empty() ? theirs : own;
  if (called.empty()) return;
  // It may wait in the backlog of a listener that is held, together with others that are not ours.
  if (type != SOCK_DGRAM) c.hold(h, HeldAs::inside);
  const Handle* listener = listener_named(c, called);
  if (listener == nullptr) return;
  // A name in the file system has to be there still, to be connected to.
  if (called[0] != '\0') {
    const std::string path = socket_file_path(called, *listener, c);
    struct stat st {};
    if (path.empty() || !c.stat_in_pod(path, &st) || !S_ISSOCK(st.st_mode)) return;
    h.record.set("listenerPath", path);
  }
  h.record.set("listener", listener->id);
}

// A stash has made it (relay/stash.h), in a network namespace of which we get no list: a stream, and its relay is or was the peer.
std::optional<UnixSocketInfo> info_of_far(const Handle& h, const CaptureContext& c, int type) {
  const int fd = h.dup.get();
  pollfd p{fd, POLLRDHUP, 0};
  if (type != SOCK_STREAM || poll(&p, 1, 0) < 0) return std::nullopt;
  const bool far = c.far.contains(h.st.st_ino);
  if (!far && (p.revents & POLLHUP) == 0) return std::nullopt;
  UnixSocketInfo info;
  info.inode = h.st.st_ino;
  info.peer = far ? kFarPeer : 0;
  info.type = type;
  info.state = kEstablished;
  info.has_peer = true;
  if ((p.revents & POLLRDHUP) != 0) info.shutdown |= kReceiveShutdown;
  // Nothing is sent, but whether something could be is asked first.
  if (send(fd, nullptr, 0, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 && errno == EPIPE) info.shutdown |= kSendShutdown;
  return info;
}

void capture(Handle& h, CaptureContext& c) {
  const int fd = h.dup.get();
  const int type = int_option(fd, SO_TYPE);
  h.record.set("type", type_name(type));
  const auto& all = c.unix_sockets();
  const auto found = all.find(h.st.st_ino);
  const auto known = found != all.end() ? found->second : info_of_far(h, c, type);
  if (!known) {
    c.block(h, "ERR_UNSUPPORTED", "a unix socket of another network namespace",
            "let the program close it first");
    return;
  }
  const UnixSocketInfo& info = *known;
  h.record.set("options", changed_options(fd, c.fresh_options(fd)));
  if (has_filter(fd))
    c.block(h, "ERR_UNSUPPORTED", "a socket filter (SO_ATTACH_FILTER)", "let the program detach it first");
  const bool connected = info.has_peer && (info.state == kEstablished || type == SOCK_DGRAM);
  if (connected) {
    capture_connected(h, c, info, type);
  } else {
    h.record.set("state", info.state == kListening ? "listening" : "unconnected");
  }
  const std::string name = own_unix_name(fd);
  const std::string state = h.record.get_string("state", "");
  if ((state != "connected" && state != "outside") || type == SOCK_DGRAM) {
    if (!name.empty()) h.record.set("name", Value::bytes(name.data(), name.size()));
    if (!name.empty() && name[0] != '\0') {
      const std::string path = socket_file_path(name, h, c);
      struct stat st {};
      if (path.empty()) {
        c.block(h, "ERR_FILE_REPLACED",
                "a unix socket bound to a relative path that cannot be found any more",
                "restart the program with an absolute path");
      } else if (c.stat_in_pod(path, &st) && S_ISSOCK(st.st_mode)) {
        h.record.set("path", path).set("mode", static_cast<int>(st.st_mode & 07777));
      }
      h.link = name;
    }
  }
  if (info.state == kListening) {
    h.record.set("backlog", static_cast<int64_t>(info.write_queue));
    if (info.receive_queue > 0) h.record.set("waiting", static_cast<int64_t>(info.receive_queue));
    if (c.hold(h, HeldAs::listener)) return;
    if (info.receive_queue > 0) {
      c.block(h, "ERR_BACKLOG",
              std::to_string(info.receive_queue) + " connections wait in the backlog of a listening socket",
              "try again when the program has accepted them");
    }
    return;
  }
  if (!state.empty() && state != "outside") capture_unix_queue(h, c, type);
}

// --- rebuild

// Binds in the pod, where the paths are. A socket file left by the pod's former life is replaced, a living
// one is somebody else's.
void bind_in_pod(RebuildContext& c, int fd, const Value& record, const std::string& name) {
  const auto address = unix_address(name);
  const Value* path = record.find("path");
  const auto expect_bound = [&](const Batch& b, size_t call) {
    try {
      b.must(call, "bind", "binding a unix socket");
    } catch (OsError& e) {
      e.at_path(path != nullptr ? path->as_string() : name);
      throw;
    }
  };
  if (path == nullptr) {
    Batch b = c.batch();
    const size_t bound = b.call(SYS_bind, fd, b.in(&address.first, sizeof address.first), address.second);
    c.run(b);
    expect_bound(b, bound);
    // The name was gone from the file system before: so it is again, when what waits in the socket has been sent to it.
    if (name[0] != '\0') {
      c.at_last.emplace_back([&c, name] {
        Batch u = c.batch();
        u.call(SYS_unlinkat, AT_FDCWD, u.in(name), 0);
        c.run(u);
      });
    }
    return;
  }
  // Somebody listens there now?
  const int probe = make_unix_socket(c, type_number(record.at("type").as_string()));
  Batch p = c.batch();
  size_t connected = 0;
  with_address(p, path->as_string(),
               [&](RemoteAddress at, socklen_t size) { connected = p.call(SYS_connect, probe, at, size); });
  p.call(SYS_close, probe);
  c.run(p);
  if (p.result(connected) == 0) {
    throw OsError("ERR_PORT_IN_USE", "bind", EADDRINUSE, "binding a unix socket").at_path(path->as_string());
  }
  Batch b = c.batch();
  size_t bound = 0;
  // A relative name is bound from the directory it was bound from.
  const std::string& whole = path->as_string();
  if (!whole.ends_with(name)) throw BadValue("a unix socket whose path does not end with its name");
  in_directory(b, whole.substr(0, whole.size() - name.size()), [&] {
    b.call(SYS_unlinkat, AT_FDCWD, b.in(name), 0);
    bound = b.call(SYS_bind, fd, b.in(&address.first, sizeof address.first), address.second);
    b.call(SYS_fchmodat, AT_FDCWD, b.in(name), record.get_int("mode", 0755));
  });
  c.run(b);
  expect_bound(b, bound);
}

RebuildContext::Roles make_pair(RebuildContext& c, int type) {
  Batch b = c.batch();
  const RemoteAddress ends = b.out(2 * sizeof(int));
  const size_t made = b.call(SYS_socketpair, AF_UNIX, type | SOCK_CLOEXEC, 0, ends);
  c.run(b);
  b.must(made, "socketpair", "making a socket pair");
  int pair[2];
  b.read(ends, pair, sizeof pair);
  RebuildContext::Roles fds;
  for (int i = 0; i < 2; ++i) {
    Batch move = c.batch();
    const size_t dup = move.call(SYS_fcntl, pair[i], F_DUPFD_CLOEXEC, 3);
    fds[i == 0 ? "a" : "b"] = c.run_for_fd(move, dup, "fcntl", "making a socket pair");
    c.close(pair[i]);
  }
  return fds;
}

// A connection whose one end bears a name: made as the program made it, by connecting to that name.
RebuildContext::Roles connect_pair(RebuildContext& c, int type, const std::string& name, int listener,
                                   const std::string& named_end) {
  const int client = make_unix_socket(c, type);
  Batch b = c.batch();
  size_t connected = 0;
  with_address(b, name, [&](RemoteAddress at, socklen_t size) {
    connected = b.call(SYS_connect, client, at, size);
    b.or_stop();
  });
  const size_t accepted = b.call(SYS_accept4, listener, 0, 0, SOCK_CLOEXEC);
  const int server = c.run_for_fd(b, accepted, "accept4", "making a unix connection again");
  b.must(connected, "connect", "making a unix connection again");
  RebuildContext::Roles fds;
  fds[named_end] = server;
  fds[named_end == "a" ? "b" : "a"] = client;
  return fds;
}

// The listener is gone, or its path: the name is lent to another one for the moment. Where it is somebody
// else's by now the pair works as well, only getsockname(2) says nothing.
RebuildContext::Roles lend_name(RebuildContext& c, int type, const std::string& name,
                                const std::string& named_end) {
  const int listener = make_unix_socket(c, type);
  const auto [address, size] = unix_address(name);
  const bool path = name[0] != '\0';
  Batch b = c.batch();
  const size_t cwd = b.call(SYS_openat, AT_FDCWD, b.in("."), O_PATH | O_DIRECTORY | O_CLOEXEC);
  b.call(SYS_chdir, b.in("/tmp"));  // for a relative one
  const size_t bound = b.call(SYS_bind, listener, b.in(&address, sizeof address), size);
  b.call(SYS_listen, listener, 1);
  c.run(b);
  const bool lent = b.result(bound) == 0;
  auto fds = lent ? connect_pair(c, type, name, listener, named_end) : make_pair(c, type);
  Batch back = c.batch();
  if (lent && path) back.call(SYS_unlinkat, AT_FDCWD, back.in(name), 0);
  back.call(SYS_fchdir, b.result(cwd));
  back.call(SYS_close, b.result(cwd));
  back.call(SYS_close, listener);
  c.run(back);
  return fds;
}

RebuildContext::Roles make_connection(const Value& record, RebuildContext& c) {
  const int type = type_number(record.at("type").as_string());
  const Value* name = record.find("name");
  const Value* peer_name = record.find("peerName");
  const std::string& end = record.at("end").as_string();
  const std::string other = end == "a" ? "b" : "a";
  if (type == SOCK_DGRAM || (name == nullptr && peer_name == nullptr)) return make_pair(c, type);
  const std::string& called = (name != nullptr ? name : peer_name)->as_bytes();
  const std::string& named_end = name != nullptr ? end : other;
  if (const Value* listener = record.find("listener")) {
    const Value* path = record.find("listenerPath");
    return connect_pair(c, type, path != nullptr ? path->as_string() : called,
                        c.handle_fd(listener->as_int()), named_end);
  }
  return lend_name(c, type, called, named_end);
}

int rebuild_connected(const Value& record, RebuildContext& c) {
  const int type = type_number(record.at("type").as_string());
  auto& fds =
      c.object_fds(record.at("object").as_int(), [&](const Value&) { return make_connection(record, c); });
  const std::string& end = record.at("end").as_string();
  const int fd = fds.at(end), other = fds.at(end == "a" ? "b" : "a");
  const UniqueFd mine = c.take(fd);
  if (const Value* name = record.find("name"); name != nullptr && type == SOCK_DGRAM) {
    bind_in_pod(c, fd, record, name->as_bytes());
    c.unix_names[name->as_bytes()] = fd;
  }
  set_options(mine.get(), record.at("options"), OptionsWhen::before_bind);
  set_options(mine.get(), record.at("options"), OptionsWhen::after);
  set_status_flags(mine.get(), static_cast<int>(record.at("flags").as_int()));
  c.when_all_stand.emplace_back([&record, &c, fd, other, type] {
    if (const Value* queue = record.find("queue")) fill_unix_queue(c.take(other).get(), *queue, type);
  });
  // Closing and shutting down come after every queue is filled.
  c.at_last.emplace_back([&record, &c, fd, other] {
    const int how = static_cast<int>(record.get_int("shutdown", 0));
    const UniqueFd own = c.take(fd);
    if (record.get_bool("peerClosed", false)) {
      c.close(other);
    } else {
      if ((how & kSendShutdown) != 0) shutdown(own.get(), SHUT_WR);
      if ((how & kReceiveShutdown) != 0) shutdown(own.get(), SHUT_RD);
    }
  });
  // The object keeps its own; handles of a pair are the pair's very descriptions.
  Batch b = c.batch();
  const size_t dup = b.call(SYS_fcntl, fd, F_DUPFD_CLOEXEC, 3);
  return c.run_for_fd(b, dup, "fcntl", "placing a unix socket");
}

int rebuild(const Value& record, RebuildContext& c) {
  const std::string& state = record.at("state").as_string();
  if (state == "connected") return rebuild_connected(record, c);
  const int type = type_number(record.at("type").as_string());
  if (state == "outside") {
    auto ends = make_pair(c, type);
    c.close(ends.at("b"));
    const UniqueFd end = c.take(ends.at("a"));
    set_options(end.get(), record.at("options"), OptionsWhen::after);
    set_status_flags(end.get(), static_cast<int>(record.at("flags").as_int()));
    return ends.at("a");
  }
  const int fd = make_unix_socket(c, type);
  const UniqueFd mine = c.take(fd);
  set_options(mine.get(), record.at("options"), OptionsWhen::before_bind);
  if (const Value* name = record.find("name")) {
    bind_in_pod(c, fd, record, name->as_bytes());
    if (type == SOCK_DGRAM) c.unix_names[name->as_bytes()] = fd;
  }
  if (state == "listening") {
    const int64_t listening = c.call(SYS_listen, fd, record.get_int("backlog", 0));
    if (listening < 0) throw OsError("listen", static_cast<int>(-listening), "listening on a unix socket");
  }
  // Once every socket has its name: a datagram comes from somebody.
  if (record.find("queue") != nullptr)
    c.when_all_stand.emplace_back([&record, &c, type] { fill_datagrams(record, c, type); });
  // Connected, it would take nothing from others any more (unix(7)).
  if (record.find("sendsTo") != nullptr) {
    c.at_last.emplace_back([&record, &c, fd] {
      Batch b = c.batch();
      size_t connected = 0;
      with_address(b, record.at("sendsTo").as_bytes(),
                   [&](RemoteAddress at, socklen_t size) { connected = b.call(SYS_connect, fd, at, size); });
      c.run(b);
      b.must(connected, "connect", "connecting a datagram socket");
    });
  }
  set_options(mine.get(), record.at("options"), OptionsWhen::after);
  set_status_flags(mine.get(), static_cast<int>(record.at("flags").as_int()));
  return fd;
}

}  // namespace

FarSocket far_unix_socket(const Value& record) {
  FarSocket s;
  s.family = AF_UNIX;
  s.type = type_number(record.at("type").as_string());
  const auto packed = [&](const char* name) {
    const Value* bytes = record.find(name);
    if (bytes == nullptr) return std::string();
    const auto [address, size] = unix_address(bytes->as_bytes());
    return std::string(reinterpret_cast<const char*>(&address), size);
  };
  s.local = packed("name");
  s.peer = packed("peerName");
  return s;
}

int make_unix_socket(RebuildContext& c, int type) {
  Batch b = c.batch();
  const size_t made = b.call(SYS_socket, AF_UNIX, type | SOCK_CLOEXEC, 0);
  return c.run_for_fd(b, made, "socket", "making a unix socket");
}

void in_directory(Batch& b, const std::string& directory, const std::function<void()>& calls) {
  if (directory.empty()) return calls();
  const size_t before = b.call(SYS_openat, AT_FDCWD, b.in("."), O_PATH | O_DIRECTORY | O_CLOEXEC);
  b.call(SYS_chdir, b.in(directory));
  calls();
  b.call(SYS_fchdir, 0);
  b.from(1, before);
  b.call(SYS_close, 0);
  b.from(1, before);
}

void with_address(Batch& b, const std::string& name,
                  const std::function<void(RemoteAddress, socklen_t)>& calls) {
  const bool fits = name.size() <= sizeof sockaddr_un{}.sun_path;
  const size_t cut = fits ? 0 : name.rfind('/') + 1;
  const auto [address, size] = unix_address(name.substr(cut));
  const RemoteAddress at = b.in(&address, sizeof address);
  in_directory(b, name.substr(0, cut), [&, length = size] { calls(at, length); });
}

const Kind kUnixSocket{"unix-socket", recognise, capture, rebuild};

}  // namespace virt
