#include "init/console.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <vector>

namespace virt::init {

using protocol::Stdio;

namespace {

constexpr off_t kMostLogBytes = 8 << 20;
constexpr size_t kReadBytes = 32 << 10;

Step make_pipe(UniqueFd* read_end, UniqueFd* write_end) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return failed("making a pipe");
  read_end->reset(ends[0]);
  write_end->reset(ends[1]);
  return done();
}

bool set_nonblocking(int fd) { return fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) == 0; }

}  // namespace

void Log::open(int state_dir) {
  dir_ = state_dir;
  file_.reset(openat(dir_, "log", O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600));
  struct stat st {};
  size_ = file_ && fstat(file_.get(), &st) == 0 ? st.st_size : 0;
}

void Log::append(std::string_view bytes) {
  if (!file_) return;
  if (size_ > kMostLogBytes) {
    renameat(dir_, "log", dir_, "log.1");
    open(dir_);
  }
  // A full disk must not stop the pod: what does not fit is not logged.
  const ssize_t n = write(file_.get(), bytes.data(), bytes.size());
  if (n > 0) size_ += n;
}

namespace {

// TIOCGPTPEER needs no path: it works whatever is mounted on /dev/pts. Not with O_CLOEXEC: the flag would
// stay with the file, and /proc/PID/fdinfo would say it of every descriptor the program has of it.
UniqueFd open_slave(int master) {
  UniqueFd slave(ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY));
  if (slave) fcntl(slave.get(), F_SETFD, FD_CLOEXEC);
  return slave;
}

}  // namespace

Step Console::make(Stdio kind, uint16_t rows, uint16_t columns, int index, bool input) {
  kind_ = kind;
  if (kind == Stdio::kTerminal) {
    // Numbers are given lowest first: hold the ones before until the wanted one comes.
    std::vector<UniqueFd> before;
    for (;;) {
      master_.reset(::open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC));
      if (!master_) return failed("opening a terminal");
      int unlock = 0;
      if (ioctl(master_.get(), TIOCSPTLCK, &unlock) != 0 || ioctl(master_.get(), TIOCGPTN, &index_) != 0) {
        return failed("opening a terminal");
      }
      if (index < 0 || index_ == static_cast<unsigned>(index)) break;
      if (index_ > static_cast<unsigned>(index)) {
        errno = EEXIST;
        return failed("opening the terminal with its old number");
      }
      before.push_back(std::move(master_));
    }
    slave_ = open_slave(master_.get());
    if (!slave_) return failed("opening the program's end of a terminal");
    resize(rows, columns);
    if (!set_nonblocking(master_.get())) return failed("setting up a terminal");
    return done();
  }
  if (input) {
    if (const Step s = make_pipe(&their_in_, &in_); s.failed()) return s;
    if (!set_nonblocking(in_.get())) return failed("setting up a pipe");
  } else {
    their_in_.reset(::open("/dev/null", O_RDONLY | O_CLOEXEC));
    if (!their_in_) return failed("opening /dev/null");
  }
  if (const Step s = make_pipe(&out_, &their_out_); s.failed()) return s;
  if (const Step s = make_pipe(&err_, &their_err_); s.failed()) return s;
  if (!set_nonblocking(out_.get()) || !set_nonblocking(err_.get())) return failed("setting up a pipe");
  return done();
}

int Console::program_fd(int n) const {
  if (kind_ == Stdio::kTerminal) return slave_.get();
  return n == 0 ? their_in_.get() : n == 1 ? their_out_.get() : their_err_.get();
}

void Console::started() {
  their_in_.reset();
  their_out_.reset();
  their_err_.reset();
}

int Console::source(int stream) const {
  if (kind_ == Stdio::kTerminal) return stream == 1 ? master_.get() : -1;
  return stream == 1 ? out_.get() : err_.get();
}

bool Console::read_from(int stream, std::string* bytes) {
  const int fd = source(stream);
  if (fd < 0) return false;
  bytes->resize(kReadBytes);
  const ssize_t n = read(fd, bytes->data(), bytes->size());
  bytes->resize(n > 0 ? static_cast<size_t>(n) : 0);
  if (n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR))) return true;
  if (kind_ == Stdio::kTerminal) {
    // The session's leader ended and the kernel hung the terminal up, our slave too: open it anew, so that
    // the master works on for whoever is left.
    slave_ = open_slave(master_.get());
    if (slave_) return true;
    master_.reset();
    return false;
  }
  (stream == 1 ? out_ : err_).reset();
  return false;
}

void Console::resize(uint16_t rows, uint16_t columns) {
  if (!master_) return;
  winsize size{};
  size.ws_row = rows;
  size.ws_col = columns;
  ioctl(master_.get(), TIOCSWINSZ, &size);
}

void Console::redraw() {
  if (!master_) return;
  pid_t group = 0;
  if (ioctl(master_.get(), TIOCGPGRP, &group) == 0 && group > 1) kill(-group, SIGWINCH);
}

int Console::input_fd() const { return kind_ == Stdio::kTerminal ? master_.get() : in_.get(); }

void Console::input(std::string_view bytes) {
  if (input_fd() >= 0 && !input_ended_) input_.append(bytes);
}

bool Console::flush_input() {
  while (!input_.empty()) {
    const ssize_t n = write(input_fd(), input_.data(), input_.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) return true;
    if (n <= 0) {
      input_.clear();  // nobody reads any more
      break;
    }
    input_.erase(0, static_cast<size_t>(n));
  }
  if (input_ended_ && kind_ == Stdio::kStreams) in_.reset();
  return false;
}

}  // namespace virt::init
