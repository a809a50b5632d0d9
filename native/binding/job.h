// A JavaScript object around a job: each method runs on the job's own thread, in order, and answers with a
// promise. When the object is collected or Node exits, the thread ends and the job with it (which thaws or
// kills, jobs.h).
#pragma once

#include <napi.h>

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>

#include "base/value.h"
#include "engine/jobs.h"

namespace virt {

class JobThread {
 public:
  JobThread();
  ~JobThread();
  JobThread(const JobThread&) = delete;
  JobThread& operator=(const JobThread&) = delete;

  // Runs `work` on the job's thread; the promise gets its result or error.
  Napi::Value post(Napi::Env env, std::function<Value()> work);
  // As post, and the thread ends after it.
  Napi::Value post_last(Napi::Env env, std::function<Value()> work);
  // Runs `last` on the job's thread and ends it; waits for that.
  void finish(const std::function<void()>& last);

 private:
  void loop();

  std::mutex lock_;
  std::condition_variable wake_;
  std::deque<std::function<void()>> queue_;
  bool ending_ = false;
  std::thread thread_;
};

// Adds launch, connect, openCapture, openRebuild … to the addon's exports.
void export_jobs(Napi::Env env, Napi::Object exports);

}  // namespace virt
