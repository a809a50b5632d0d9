#include "relay/namespace_thread.h"

#include <sched.h>

#include <cerrno>

#include "sys/thread.h"

namespace virt {

int NamespaceThread::start() {
  if (runs_) return EBUSY;
  over_ = false;
  int error = start_thread(enter, this, &id_);
  if (error != 0) return error;
  runs_ = true;
  error = run([] { return unshare(CLONE_FS | CLONE_NEWNET) == 0 ? 0 : errno; });
  if (error != 0) stop();
  return error;
}

int NamespaceThread::run(const std::function<int()>& what) {
  const std::lock_guard one(callers_);
  if (!runs_) return ESRCH;
  std::unique_lock lock(mutex_);
  task_ = &what;
  changed_.notify_all();
  changed_.wait(lock, [&] { return task_ == nullptr; });
  return result_;
}

void NamespaceThread::stop() {
  const std::lock_guard one(callers_);
  if (!runs_) return;
  {
    const std::lock_guard lock(mutex_);
    over_ = true;
    changed_.notify_all();
  }
  pthread_join(id_, nullptr);
  runs_ = false;
}

void* NamespaceThread::enter(void* self) {
  static_cast<NamespaceThread*>(self)->serve();
  return nullptr;
}

void NamespaceThread::serve() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [&] { return over_ || task_ != nullptr; });
    if (task_ == nullptr) return;
    const std::function<int()>& task = *task_;
    lock.unlock();
    const int result = task();
    lock.lock();
    result_ = result;
    task_ = nullptr;
    changed_.notify_all();
  }
}

}  // namespace virt
