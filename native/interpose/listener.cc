#include "interpose/listener.h"

#include <fcntl.h>
#include <linux/seccomp.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace virt {
namespace {

// Linux 6.6; Debian 12's headers are older. The waker hands its CPU to the one it wakes: a question costs a third.
constexpr unsigned long kSetFlags = _IOW('!', 4, uint64_t);
constexpr uint64_t kWakeOnSameCpu = 1;
constexpr uint32_t kAddAndAnswer = 1U << 1;  // SECCOMP_ADDFD_FLAG_SEND, Linux 5.14
constexpr size_t kMostBytes = 512;  // of a question or an answer: a newer kernel's may be larger than ours

}  // namespace

Listener::Listener(UniqueFd fd) : fd_(std::move(fd)) { ioctl(fd_.get(), kSetFlags, kWakeOnSameCpu); }

bool Listener::receive(Question* question) const {
  alignas(seccomp_notif) char bytes[kMostBytes] = {};  // the kernel insists
  static_assert(sizeof(seccomp_notif) <= sizeof bytes);
  if (ioctl(fd_.get(), SECCOMP_IOCTL_NOTIF_RECV, bytes) != 0) return false;
  seccomp_notif n;
  std::memcpy(&n, bytes, sizeof n);
  question->id = n.id;
  question->tid = static_cast<pid_t>(n.pid);
  question->number = static_cast<uint32_t>(n.data.nr);
  for (int i = 0; i < 6; ++i) question->args[i] = n.data.args[i];
  return true;
}

bool Listener::waits(const Question& question) const {
  return ioctl(fd_.get(), SECCOMP_IOCTL_NOTIF_ID_VALID, &question.id) == 0;
}

bool Listener::send(const Question& question, int64_t value, int error, uint32_t flags) const {
  alignas(seccomp_notif_resp) char bytes[kMostBytes] = {};
  static_assert(sizeof(seccomp_notif_resp) <= sizeof bytes);
  seccomp_notif_resp r{};
  r.id = question.id;
  r.val = value;
  r.error = -error;
  r.flags = flags;
  std::memcpy(bytes, &r, sizeof r);
  return ioctl(fd_.get(), SECCOMP_IOCTL_NOTIF_SEND, bytes) == 0;
}

bool Listener::let_pass(const Question& question) const {
  return send(question, 0, 0, SECCOMP_USER_NOTIF_FLAG_CONTINUE);
}

bool Listener::answer(const Question& question, int64_t value, int error) const {
  return send(question, error == 0 ? value : 0, error, 0);
}

bool Listener::inject(const Question& question, int fd, bool close_on_exec) const {
  seccomp_notif_addfd add{};
  add.id = question.id;
  add.flags = kAddAndAnswer;
  add.srcfd = static_cast<uint32_t>(fd);
  add.newfd_flags = close_on_exec ? O_CLOEXEC : 0;
  return ioctl(fd_.get(), SECCOMP_IOCTL_NOTIF_ADDFD, &add) >= 0;
}

}  // namespace virt
