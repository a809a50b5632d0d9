#include "resources/terminal.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <termios.h>

#include <cerrno>

#include "base/error.h"
#include "resources/kinds.h"
#include "resources/rebuild_context.h"
#include "resources/terminal_input.h"

#ifndef TIOCGPKT
#define TIOCGPKT _IOR('T', 0x38, int)
#define TIOCGEXCL _IOR('T', 0x40, int)
#endif

namespace virt {
namespace {

constexpr unsigned kFirstSlaveMajor = 136, kLastSlaveMajor = 143, kTtyMajor = 5;

// struct termios2 of asm/termbits.h, which clashes with termios.h: carried as it is.
struct RawTermios {
  char bytes[44];
};
constexpr unsigned long kGetTermios = 0x802c542a, kSetTermios = 0x402c542b;  // TCGETS2, TCSETS2

bool is_slave(const struct stat& st) {
  return major(st.st_rdev) >= kFirstSlaveMajor && major(st.st_rdev) <= kLastSlaveMajor;
}

bool recognise(const Handle& h, const CaptureContext& c) {
  if (!S_ISCHR(h.st.st_mode) || (h.flags & O_PATH) != 0) return false;
  if (is_slave(h.st)) return h.st.st_dev == c.devpts_device();
  return major(h.st.st_rdev) == kTtyMajor && (minor(h.st.st_rdev) == 0 || minor(h.st.st_rdev) == 2);
}

Handle* master_in_pod(unsigned index, CaptureContext& c) {
  for (Handle& h : *c.handles) {
    unsigned number = 0;
    if (S_ISCHR(h.st.st_mode) && major(h.st.st_rdev) == kTtyMajor && minor(h.st.st_rdev) == 2 &&
        ioctl(h.dup.get(), TIOCGPTN, &number) == 0 && number == index) {
      return &h;
    }
  }
  return nullptr;
}

void capture(Handle& h, CaptureContext& c) {
  const bool master = major(h.st.st_rdev) == kTtyMajor && minor(h.st.st_rdev) == 2;
  unsigned index = 0;
  if (master) {
    check(ioctl(h.dup.get(), TIOCGPTN, &index), "ioctl", "asking a terminal's number");
  } else {
    unsigned device = 0;  // of the terminal behind /dev/tty, too
    if (ioctl(h.dup.get(), TIOCGDEV, &device) != 0) {
      c.block(h, "ERR_TERMINAL_GONE", "a terminal that was hung up", "let the program close it");
      return;
    }
    index = minor(device) + (major(device) - kFirstSlaveMajor) * 256;
  }
  int id;
  if (c.terminal_master() >= 0 && index == c.terminal_index()) {
    id = terminal_object(index, c.terminal_master(), true, c);
  } else if (Handle* holder = master_in_pod(index, c)) {
    id = terminal_object(index, holder->dup.get(), false, c);
    int unread = 0;
    if (master && ioctl(h.dup.get(), FIONREAD, &unread) == 0 && unread > 0) {
      c.block(h, "ERR_TERMINAL_UNREAD", "a terminal with output that its master has not read yet",
              "let the program that holds the master read it");
    }
  } else {
    c.block(h, "ERR_EXEC_STREAM",
            "the terminal of a command that was started with `exec -t` and is still running",
            "end that command first");
    return;
  }
  h.record.set("object", id);
  h.record.set("role", master ? "master" : "slave");
}

RebuildContext::Roles make_terminal(const Value& object, RebuildContext& c) {
  RebuildContext::Roles fds;
  const auto index = object.at("index").as_int(0, 1 << 20);
  UniqueFd master;
  if (object.get_bool("keptByInit", false)) {
    if (!c.terminal_master) throw BadValue("the image has a terminal, the plan has none");
    master.reset(fcntl(c.terminal_master.get(), F_DUPFD_CLOEXEC, 0));
  } else {
    // Numbers are given lowest first: hold the ones before until the wanted one comes.
    std::vector<int> before;
    for (;;) {
      const int fd = c.open_in_pod("/dev/ptmx", O_RDWR | O_NOCTTY);
      master = c.take(fd);
      unsigned number = 0;
      check(ioctl(master.get(), TIOCGPTN, &number), "ioctl", "asking a terminal's number");
      if (number == index) {
        fds["master"] = fd;
        break;
      }
      if (number > index) throw OsError("open", EEXIST, "making a terminal with its old number");
      before.push_back(fd);
    }
    for (const int fd : before) c.close(fd);
    int unlock = 0;
    check(ioctl(master.get(), TIOCSPTLCK, &unlock), "ioctl", "unlocking a terminal");
  }
  const std::string& settings = object.at("termios").as_bytes();
  if (settings.size() != sizeof(RawTermios)) throw BadValue("terminal settings of the wrong size");
  check(ioctl(master.get(), kSetTermios, settings.data()), "ioctl", "setting a terminal");
  winsize size{};
  size.ws_row = static_cast<unsigned short>(object.at("rows").as_int(0, 65535));
  size.ws_col = static_cast<unsigned short>(object.at("columns").as_int(0, 65535));
  size.ws_xpixel = static_cast<unsigned short>(object.get_int("pixelWidth", 0));
  size.ws_ypixel = static_cast<unsigned short>(object.get_int("pixelHeight", 0));
  check(ioctl(master.get(), TIOCSWINSZ, &size), "ioctl", "sizing a terminal");
  if (const Value* input = object.find("input")) put_terminal_input(master.get(), input->as_bytes());
  if (object.get_bool("packet", false)) {
    int on = 1;
    check(ioctl(master.get(), TIOCPKT, &on), "ioctl", "setting a terminal's packet mode");
  }
  return fds;
}

int rebuild(const Value& record, RebuildContext& c) {
  const int64_t id = record.at("object").as_int();
  auto& fds = c.object_fds(id, [&](const Value& o) { return make_terminal(o, c); });
  const auto flags = static_cast<int>(record.at("flags").as_int());
  if (record.at("role").as_string() == "master") {
    const auto master = fds.find("master");
    if (master == fds.end()) throw BadValue("a terminal's master that init keeps cannot be in the pod");
    // A master cannot be opened a second time: the first description is the one.
    Batch b = c.batch();
    const size_t dup = b.call(SYS_fcntl, master->second, F_DUPFD_CLOEXEC, 3);
    const int fd = c.run_for_fd(b, dup, "fcntl", "placing a terminal's master");
    set_status_flags(c.take(fd).get(), flags);
    return fd;
  }
  const std::string path = "/dev/pts/" + std::to_string(c.object(id).at("index").as_int());
  return c.open_in_pod(path, (flags & (O_ACCMODE | O_NONBLOCK | O_APPEND)) | O_NOCTTY);
}

}  // namespace

int terminal_object(unsigned index, int master, bool kept_by_init, CaptureContext& context) {
  const Inode key{context.devpts_device(),
                  0x100000000ULL + index};  // one per terminal, unlike any real inode
  if (const auto known = context.find_object(key)) return *known;
  const int id = context.object("terminal", key, [&] {
    Value o = Value::map();
    o.set("index", static_cast<int64_t>(index));
    if (kept_by_init) o.set("keptByInit", true);
    RawTermios settings{};
    check(ioctl(master, kGetTermios, &settings), "ioctl", "reading a terminal's settings");
    o.set("termios", Value::bytes(&settings, sizeof settings));
    winsize size{};
    check(ioctl(master, TIOCGWINSZ, &size), "ioctl", "reading a terminal's size");
    o.set("rows", size.ws_row).set("columns", size.ws_col);
    if (size.ws_xpixel != 0) o.set("pixelWidth", size.ws_xpixel).set("pixelHeight", size.ws_ypixel);
    pid_t session = 0, group = 0;
    if (ioctl(master, TIOCGSID, &session) == 0 && session > 0) o.set("session", context.to_pod_pid(session));
    if (ioctl(master, TIOCGPGRP, &group) == 0 && group > 0) o.set("foreground", context.to_pod_pid(group));
    int packet = 0;
    if (ioctl(master, TIOCGPKT, &packet) == 0 && packet != 0) o.set("packet", true);
    return o;
  });
  context.read_last.emplace_back([&context, id, master] {
    const std::string typed = peek_terminal_input(master);
    if (!typed.empty()) context.object_record(id).set("input", Value::bytes(typed.data(), typed.size()));
  });
  return id;
}

const Kind kTerminal{"terminal", recognise, capture, rebuild};

}  // namespace virt
