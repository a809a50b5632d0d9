// Everything no other kind recognised: refused by the name a person can use, with what to do about it.
#include <sys/socket.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>

#include "base/error.h"
#include "resources/capture_context.h"
#include "resources/kinds.h"
#include "resources/rebuild_context.h"

namespace virt {
namespace {

constexpr long kNamespaces = 0x6e736673, kMessageQueues = 0x19800202,
               kSecretMemory = 0x5345434d;  // statfs(2)
constexpr int kMptcp = 262;

struct Name {
  std::string_view link;
  const char* what;
  const char* hint;
};

constexpr Name kNames[] = {
    {"anon_inode:[io_uring]", "an io_uring ring",
     "the kernel lets nobody carry a ring; turn io_uring off in the program"},
    {"anon_inode:inotify", "an inotify instance", "not carried yet; close it first"},
    {"anon_inode:[fanotify]", "a fanotify group", "close it first"},
    {"anon_inode:[perf_event]", "a perf event", "end the profiling first"},
    {"anon_inode:bpf-map", "a BPF map", "close it first"},
    {"anon_inode:bpf-prog", "a BPF program", "close it first"},
    {"anon_inode:bpf_link", "a BPF link", "close it first"},
    {"anon_inode:kvm-vm", "a virtual machine", "end the virtual machine first"},
    {"anon_inode:kvm-vcpu", "a virtual machine", "end the virtual machine first"},
    {"anon_inode:[userfaultfd]", "a userfaultfd", "close it first"},
    {"anon_inode:[pidfd]", "a pidfd", "not carried yet; close it first"},
    {"anon_inode:seccomp notify", "a seccomp listener", "end the supervising program first"},
    {"anon_inode:[fscontext]", "a file system being configured", "close it first"},
    {"anon_inode:[landlock-ruleset]", "a Landlock ruleset", "close it first"},
    {"anon_inode:landlock-ruleset", "a Landlock ruleset", "close it first"},
};

std::string describe(const Handle& h, std::string* hint) {
  for (const Name& n : kNames) {
    if (h.link == n.link) {
      *hint = n.hint;
      return n.what;
    }
  }
  *hint = "let the program close it first";
  if (h.link.starts_with("pidfd:")) return "a pidfd";
  struct statfs fs {};
  if (fstatfs(h.dup.get(), &fs) == 0) {
    if (fs.f_type == kNamespaces) return "a namespace";
    if (fs.f_type == kMessageQueues) return "a POSIX message queue";
    if (fs.f_type == kSecretMemory) return "secret memory (memfd_secret)";
  }
  if (S_ISSOCK(h.st.st_mode)) {
    int family = 0;
    socklen_t size = sizeof family;
    getsockopt(h.dup.get(), SOL_SOCKET, SO_DOMAIN, &family, &size);
    if (family == AF_INET || family == AF_INET6) {
      int type = 0, protocol = 0;
      getsockopt(h.dup.get(), SOL_SOCKET, SO_TYPE, &type, &size);
      getsockopt(h.dup.get(), SOL_SOCKET, SO_PROTOCOL, &protocol, &size);
      if (type == SOCK_RAW) return "a raw socket";
      return protocol == kMptcp ? "an MPTCP socket" : "a socket of protocol " + std::to_string(protocol);
    }
    switch (family) {
      case AF_NETLINK:
        return "a netlink socket";
      case AF_PACKET:
        return "a packet socket";
      case AF_VSOCK:
        return "a VM socket";
      default:
        return "a socket of address family " + std::to_string(family);
    }
  }
  if (S_ISCHR(h.st.st_mode) || S_ISBLK(h.st.st_mode)) {
    return "device " + std::to_string(major(h.st.st_rdev)) + ":" + std::to_string(minor(h.st.st_rdev));
  }
  return "a handle of a kind that is not carried";
}

bool recognise(const Handle&, const CaptureContext&) { return true; }

void capture(Handle& h, CaptureContext& c) {
  std::string hint;
  const std::string what = describe(h, &hint);
  c.block(h, "ERR_UNSUPPORTED", what, hint);
}

int rebuild(const Value&, RebuildContext&) { throw BadValue("a handle of an unsupported kind in an image"); }

}  // namespace

const Kind kUnsupported{"unsupported", recognise, capture, rebuild};

}  // namespace virt
