#include "resources/terminal_input.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include <cerrno>
#include <ctime>

#include "base/error.h"
#include "base/scope_exit.h"
#include "sys/fd.h"

namespace virt {
namespace {

// Input from the master passes through a work queue of the kernel before the line discipline sees it.
constexpr timespec kForTheKernel{0, 2'000'000};

UniqueFd program_end(int master) {
  UniqueFd slave(ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC));
  if (!slave) throw OsError("ioctl", errno, "opening a terminal's other end");
  return slave;
}

termios settings_of(int slave) {
  termios t{};
  check(tcgetattr(slave, &t), "tcgetattr", "reading a terminal's settings");
  return t;
}

// Every byte stands for itself.
termios uninterpreted(const termios& t) {
  termios out = t;
  out.c_iflag &= ~static_cast<tcflag_t>(ISTRIP | INLCR | IGNCR | ICRNL | IUCLC | IXON | IXOFF | PARMRK);
  out.c_lflag &= ~static_cast<tcflag_t>(ECHO | ECHONL | ECHOE | ECHOK | ISIG | IEXTEN);
  for (const int key : {VERASE, VKILL, VEOF, VEOL, VEOL2, VWERASE, VLNEXT, VREPRINT})
    out.c_cc[key] = _POSIX_VDISABLE;
  return out;
}

}  // namespace

std::string peek_terminal_input(int master) {
  const UniqueFd slave = program_end(master);
  const termios before = settings_of(slave.get());
  termios raw = uninterpreted(before);
  raw.c_lflag &= ~static_cast<tcflag_t>(ICANON);  // or the beginning of a line would not show
  raw.c_cc[VMIN] = 0;
  raw.c_cc[VTIME] = 0;
  check(tcsetattr(slave.get(), TCSANOW, &raw), "tcsetattr", "looking at a terminal's input");
  std::string bytes;
  {
    const ScopeExit restore([&] { tcsetattr(slave.get(), TCSANOW, &before); });
    char buffer[4096];  // N_TTY_BUF_SIZE: more never waits
    for (;;) {
      const ssize_t n = read(slave.get(), buffer, sizeof buffer);
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) break;
      bytes.append(buffer, static_cast<size_t>(n));
    }
  }
  if (!bytes.empty()) put_terminal_input(master, bytes);
  return bytes;
}

void put_terminal_input(int master, const std::string& bytes) {
  const UniqueFd slave = program_end(master);
  const termios before = settings_of(slave.get());
  const termios quiet = uninterpreted(before);
  check(tcsetattr(slave.get(), TCSANOW, &quiet), "tcsetattr", "putting back a terminal's input");
  const ScopeExit restore([&] { tcsetattr(slave.get(), TCSANOW, &before); });
  const ssize_t n = write(master, bytes.data(), bytes.size());
  nanosleep(&kForTheKernel, nullptr);
  if (n != static_cast<ssize_t>(bytes.size())) {
    throw OsError("write", n < 0 ? errno : EIO, "putting back a terminal's input");
  }
}

}  // namespace virt
