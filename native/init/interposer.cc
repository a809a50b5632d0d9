#include "init/interposer.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <string>

#include "interpose/filter.h"
#include "interpose/journal.h"
#include "interpose/listener.h"
#include "interpose/recorder.h"

namespace virt::init {
namespace {

// What may be written is asked as the program would be told: with no more rights than it has, but those to look.
void lower_rights() {
  constexpr uint32_t kLook = 1U << CAP_SYS_PTRACE | 1U << CAP_DAC_READ_SEARCH;
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2] = {};
  if (syscall(SYS_capget, &header, data) != 0) return;
  data[0].effective &= kLook;
  data[1].effective = 0;
  syscall(SYS_capset, &header, data);
}

// Low numbers are the program's: it is pid 2, and a pod that is rebuilt has its own again. So the thread gets one of the
// last (proc_sys_kernel(5), ns_last_pid; pid_namespaces(7)). Where that is not to be had it gets the next.
void set_last_pid(long pid) {
  const UniqueFd file(open("/proc/sys/kernel/ns_last_pid", O_WRONLY | O_CLOEXEC));
  const std::string text = std::to_string(pid);
  if (file) (void)!write(file.get(), text.data(), text.size());
}

long highest_pid() {
  const UniqueFd file(open("/proc/sys/kernel/pid_max", O_RDONLY | O_CLOEXEC));
  char text[32] = "";
  if (!file || read(file.get(), text, sizeof text - 1) <= 0) return 32768;
  return std::atol(text);
}

}  // namespace

int Interposer::start(Recording recording, Sockets sockets, int state_dir, bool paused) {
  paused_ = paused;
  state_dir_ = state_dir;
  real_root_ = getuid() == 0;
  asked_.reset(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  caught_up_.reset(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!asked_ || !caught_up_) return errno;
  int news[2];
  if (pipe2(news, O_CLOEXEC) != 0) return errno;
  news_.reset(news[0]);
  const UniqueFd tell(news[1]);
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  constexpr size_t kStackBytes = 256 << 10;
  pthread_attr_setstacksize(&attributes, kStackBytes);
  pthread_t id;
  set_last_pid(highest_pid() - 3);
  const int error = pthread_create(&id, &attributes, thread, this);
  set_last_pid(getpid());
  pthread_attr_destroy(&attributes);
  if (error != 0) return error;
  pthread_detach(id);
  UniqueFd listener;
  if (const int refused = install_filter(recording, sockets, &listener); refused != 0) return refused;
  // From here on whoever makes a selected call waits for the thread.
  const int number = listener.release();
  if (write(tell.get(), &number, sizeof number) != sizeof number) return EIO;
  runs_ = true;
  return 0;
}

void Interposer::catch_up() {
  if (!runs_) return;
  constexpr int kPatienceMs = 1000;
  eventfd_write(asked_.get(), 1);
  pollfd p{caught_up_.get(), POLLIN, 0};
  poll(&p, 1, kPatienceMs);
}

void* Interposer::thread(void* self) {
  static_cast<Interposer*>(self)->serve();
  return nullptr;
}

void Interposer::serve() {
  int number = -1;
  if (read(news_.get(), &number, sizeof number) != sizeof number) return;
  if (!real_root_) lower_rights();
  Listener listener{UniqueFd(number)};
  Journal journal(state_dir_);
  Recorder recorder(listener, journal);
  constexpr int kMostPauseMs = 64;
  int pause_ms = 1;  // longer and longer while there is nothing new about a call
  constexpr size_t kMostBehind = 256;
  for (;;) {
    pollfd p[] = {{listener.fd(), POLLIN, 0}, {asked_.get(), POLLIN, 0}};
    const int ready = poll(p, 2, recorder.behind() > 0 ? pause_ms : -1);
    if (ready < 0 && errno != EINTR) return;
    if ((p[0].revents & POLLIN) != 0) {
      pause_ms = 1;
      Question question;
      recorder.pause(paused_);
      if (listener.receive(&question)) recorder.handle(question);
    }
    // When nobody asks, or at last.
    const bool asked = (p[1].revents & POLLIN) != 0;
    if (ready == 0) pause_ms = std::min(pause_ms * 2, kMostPauseMs);
    if (ready == 0 || asked || recorder.behind() > kMostBehind) recorder.catch_up(asked);
    eventfd_t count;
    if (asked && eventfd_read(asked_.get(), &count) == 0) eventfd_write(caught_up_.get(), 1);
  }
}

}  // namespace virt::init
