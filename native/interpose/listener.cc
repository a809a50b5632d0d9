#include "interpose/listener.h"

#include <linux/seccomp.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace virt {
namespace {

// Linux 6.6; Debian 12's headers are older. The waker hands its CPU to the one it wakes: a question costs a third.
constexpr unsigned long kSetFlags = _IOW('!', 4, uint64_t);
constexpr uint64_t kWakeOnSameCpu = 1;

}  // namespace

Listener::Listener(UniqueFd fd) : fd_(std::move(fd)) {
  seccomp_notif_sizes sizes{};
  if (syscall(SYS_seccomp, SECCOMP_GET_NOTIF_SIZES, 0, &sizes) != 0) sizes = {};
  request_.resize(std::max<size_t>(sizes.seccomp_notif, sizeof(seccomp_notif)));
  answer_.resize(std::max<size_t>(sizes.seccomp_notif_resp, sizeof(seccomp_notif_resp)));
  ioctl(fd_.get(), kSetFlags, kWakeOnSameCpu);
}

bool Listener::receive(Question* question) {
  std::fill(request_.begin(), request_.end(), '\0');  // the kernel insists
  if (ioctl(fd_.get(), SECCOMP_IOCTL_NOTIF_RECV, request_.data()) != 0) return false;
  seccomp_notif n;
  std::memcpy(&n, request_.data(), sizeof n);
  question->id = n.id;
  question->tid = static_cast<pid_t>(n.pid);
  question->number = static_cast<uint32_t>(n.data.nr);
  for (int i = 0; i < 6; ++i) question->args[i] = n.data.args[i];
  return true;
}

bool Listener::let_pass(const Question& question) {
  std::fill(answer_.begin(), answer_.end(), '\0');
  seccomp_notif_resp r{};
  r.id = question.id;
  r.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
  std::memcpy(answer_.data(), &r, sizeof r);
  return ioctl(fd_.get(), SECCOMP_IOCTL_NOTIF_SEND, answer_.data()) == 0;
}

}  // namespace virt
