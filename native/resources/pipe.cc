// Pipes and named pipes: both ends, what waits in them, their size and packet mode (pipe(7), fifo(7)). A pipe
// is one object; each open file description on it is a handle. A pipe whose other end lies outside the pod is
// refused unless the launcher gave it (launcher_stream.cc).
#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

#include "base/error.h"
#include "resources/capture_context.h"
#include "resources/kinds.h"
#include "resources/pipe_content.h"
#include "resources/rebuild_context.h"
#include "sys/file.h"

namespace virt {

std::string peek_pipe(int read_end) {
  int waiting = 0;
  check(ioctl(read_end, FIONREAD, &waiting), "ioctl", "asking how much waits in a pipe");
  if (waiting == 0) return {};
  int copy[2];
  check(pipe2(copy, O_CLOEXEC | O_NONBLOCK), "pipe2", "copying a pipe");
  UniqueFd out(copy[0]), in(copy[1]);
  // The copy needs as many slots as the original has, whatever is in each.
  const int size = fcntl(read_end, F_GETPIPE_SZ);
  if (size > 0) check(fcntl(in.get(), F_SETPIPE_SZ, size), "fcntl", "copying a pipe");
  const ssize_t n = tee(read_end, in.get(), static_cast<size_t>(size), SPLICE_F_NONBLOCK);
  if (n < 0 && errno == EAGAIN) return {};
  check(n, "tee", "copying what waits in a pipe");
  std::string bytes(static_cast<size_t>(n), '\0');
  size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t got = read(out.get(), bytes.data() + done, bytes.size() - done);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) throw OsError("read", got < 0 ? errno : EIO, "copying what waits in a pipe");
    done += static_cast<size_t>(got);
  }
  if (done != static_cast<size_t>(waiting))
    throw OsError("tee", EIO, "copying what waits in a pipe: not all came over");
  return bytes;
}

namespace {

bool is_named(const Handle& h) { return !h.link.starts_with("pipe:"); }

bool recognise(const Handle& h, const CaptureContext&) {
  return S_ISFIFO(h.st.st_mode) && (h.flags & O_PATH) == 0;
}

Value capture_object(const Handle& h, CaptureContext& c) {
  Value o = Value::map();
  bool reader = false, writer = false, packets = false;
  const Handle* any_reader = nullptr;
  for (const Handle& other : *c.handles) {
    if (inode_of(other.st) != inode_of(h.st)) continue;
    packets = packets || (other.flags & O_DIRECT) != 0;
    if (other.access() != O_WRONLY) {
      reader = true;
      any_reader = &other;
    }
    writer = writer || other.access() != O_RDONLY;
  }
  // The kernel tells by POLLERR and POLLHUP whether anybody holds the other end; if somebody does and it is
  // nobody of ours, it is outside.
  pollfd p{h.dup.get(), POLLIN | POLLOUT, 0};
  poll(&p, 1, 0);
  const bool outside = (h.access() == O_WRONLY && !reader && (p.revents & POLLERR) == 0) ||
                       (h.access() == O_RDONLY && !writer && (p.revents & POLLHUP) == 0 && !is_named(h));
  if (outside) {
    c.block(h, "ERR_OUTSIDE_PIPE", "a pipe whose other end is held by a process outside the pod",
            "start that process inside the pod, or accept the loss with --drop pipe");
  }
  o.set("sizeBytes", fcntl(h.dup.get(), F_GETPIPE_SZ));
  if (packets) o.set("packets", true);
  if (is_named(h)) {
    o.set("path", without_deleted(h.link));
    struct stat there {};
    if (h.st.st_nlink != 0 &&
        (!c.stat_in_pod(without_deleted(h.link), &there) || inode_of(there) != inode_of(h.st))) {
      c.block(h, "ERR_FILE_REPLACED", "a named pipe that its name does not lead to any more",
              "put it back under this name, or let the program reopen it");
    }
    if (h.st.st_nlink == 0) o.set("unlinked", true).set("mode", static_cast<int>(h.st.st_mode & 07777));
  }
  // A write end shows the content as well, through a new description of the same pipe.
  UniqueFd reading;
  int from = any_reader != nullptr ? any_reader->dup.get() : -1;
  if (from < 0) {
    reading = open_file("/proc/self/fd/" + std::to_string(h.dup.get()), O_RDONLY | O_NONBLOCK);
    from = reading.get();
  }
  const std::string waiting = peek_pipe(from);
  if (!waiting.empty() && packets) {
    c.block(h, "ERR_PACKET_PIPE", "a pipe in packet mode with packets in it",
            "let the reader catch up first");
  }
  if (!waiting.empty()) o.set("content", Value::bytes(waiting.data(), waiting.size()));
  return o;
}

void capture(Handle& h, CaptureContext& c) {
  const int id = c.object("pipe", inode_of(h.st), [&] { return capture_object(h, c); });
  h.record.set("object", id);
}

// A named pipe whose name is gone is made under that name again, or, where another file has it now, one like
// it.
std::string make_fifo(const Value& object, RebuildContext& c) {
  const std::string& path = object.at("path").as_string();
  const auto mode = static_cast<int>(object.get_int("mode", 0600) & 07777);
  for (int i = 0; i < 100; ++i) {
    std::string name = i == 0 ? path : path + "." + std::to_string(i);
    Batch b = c.batch();
    const size_t made = b.call(SYS_mknodat, AT_FDCWD, b.in(name), S_IFIFO | mode, 0);
    b.or_stop();
    b.call(SYS_fchmodat, AT_FDCWD, b.in(name), mode);
    c.run(b);
    if (b.result(made) == 0) return name;
    if (b.result(made) != -EEXIST)
      throw OsError("mknodat", static_cast<int>(-b.result(made)), "making an unlinked named pipe again")
          .at_path(name);
  }
  throw OsError("mknodat", EEXIST, "making an unlinked named pipe again").at_path(path);
}

// Content goes in through a write end that is closed again: end of file and EPIPE come out as they were,
// because only the descriptions of the image remain.
RebuildContext::Roles make_pipe(const Value& object, RebuildContext& c) {
  RebuildContext::Roles fds;
  UniqueFd writing;
  if (const Value* path = object.find("path")) {
    const bool unlinked = object.get_bool("unlinked", false);
    const std::string name = unlinked ? make_fifo(object, c) : path->as_string();
    // O_RDWR does not wait for the other side (fifo(7)).
    const int both = c.open_in_pod(name, O_RDWR | O_NONBLOCK);
    if (unlinked) {
      Batch b = c.batch();
      b.call(SYS_unlinkat, AT_FDCWD, b.in(name), 0);
      c.run(b);
    }
    fds["any"] = both;
    writing = c.take(both);
  } else {
    Batch b = c.batch();
    const RemoteAddress ends = b.out(2 * sizeof(int));
    const size_t made = b.call(SYS_pipe2, ends, O_CLOEXEC);
    c.run(b);
    b.must(made, "pipe2", "making a pipe");
    int pair[2];
    b.read(ends, pair, sizeof pair);
    for (int i = 0; i < 2; ++i) {
      Batch move = c.batch();
      const size_t dup = move.call(SYS_fcntl, pair[i], F_DUPFD_CLOEXEC, 3);
      fds[i == 0 ? "read" : "write"] = c.run_for_fd(move, dup, "fcntl", "making a pipe");
      c.close(pair[i]);
    }
    writing = c.take(fds["write"]);
  }
  const auto size = object.get_int("sizeBytes", 0);
  if (size > 0 && fcntl(writing.get(), F_GETPIPE_SZ) != size) {
    // Unprivileged users may be over their limit of pipe pages; the content must fit, the rest is comfort.
    if (fcntl(writing.get(), F_SETPIPE_SZ, static_cast<int>(size)) < 0 && errno != EPERM && errno != EBUSY) {
      throw OsError("fcntl", errno, "sizing a pipe");
    }
  }
  if (const Value* content = object.find("content")) {
    const std::string& bytes = content->as_bytes();
    fcntl(writing.get(), F_SETFL, fcntl(writing.get(), F_GETFL) | O_NONBLOCK);
    const ssize_t n = write(writing.get(), bytes.data(), bytes.size());
    if (n != static_cast<ssize_t>(bytes.size())) {
      throw OsError("write", n < 0 ? errno : EIO, "putting back what waited in a pipe");
    }
    fcntl(writing.get(), F_SETFL, fcntl(writing.get(), F_GETFL) & ~O_NONBLOCK);
  }
  return fds;
}

int rebuild(const Value& record, RebuildContext& c) {
  auto& fds = c.object_fds(record.at("object").as_int(), [&](const Value& o) { return make_pipe(o, c); });
  const auto flags = static_cast<int>(record.at("flags").as_int());
  const int access = flags & O_ACCMODE;
  // Every description gets one of its own; what was made with the object is closed when all stand.
  const int any = fds.contains("any") ? fds["any"] : fds[access == O_WRONLY ? "write" : "read"];
  const int fd = c.reopen(any, access | (flags & (O_NONBLOCK | O_APPEND)));
  // Packet mode; open(2) knows O_DIRECT of files only.
  if ((flags & O_DIRECT) != 0) set_status_flags(c.take(fd).get(), flags);
  return fd;
}

}  // namespace

const Kind kPipe{"pipe", recognise, capture, rebuild};

}  // namespace virt
