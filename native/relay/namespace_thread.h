// A thread that lives in network namespaces of its own (network_namespaces(7): a namespace belongs to a thread), and with
// a root and a working directory of its own, so that the process around it stays where it is. What must be made in there
// is run on it. No exceptions: used by virt-init.
//
// Start it before a filter is put on the calling thread (seccomp(2): threads inherit it). All its signals are blocked.
#pragma once

#include <pthread.h>

#include <condition_variable>
#include <functional>
#include <mutex>

namespace virt {

class NamespaceThread {
 public:
  NamespaceThread() = default;
  NamespaceThread(const NamespaceThread&) = delete;
  NamespaceThread& operator=(const NamespaceThread&) = delete;
  ~NamespaceThread() { stop(); }

  // Needs CAP_SYS_ADMIN in the user namespace. 0 or errno (EPERM, EAGAIN, EBUSY: it runs already).
  int start();
  // Runs `what` there and gives what it returns; one caller after the other. ESRCH: there is no thread.
  //   int error = thread.run([&] { return (fd = socket(...)) >= 0 ? 0 : errno; });
  int run(const std::function<int()>& what);
  // Sockets that were made there keep their namespaces.
  void stop();

 private:
  static void* enter(void* self);
  void serve();

  pthread_t id_{};
  bool runs_ = false;
  std::mutex callers_, mutex_;
  std::condition_variable changed_;
  const std::function<int()>* task_ = nullptr;  // what is to be run, until it is done
  int result_ = 0;
  bool over_ = false;
};

}  // namespace virt
