#include "binding/job.h"

#include "base/error.h"
#include "binding/convert.h"
#include "binding/launch_options.h"
#include "binding/wire.h"

namespace virt {

JobThread::JobThread() : thread_([this] { loop(); }) {}

JobThread::~JobThread() { finish({}); }

void JobThread::loop() {
  std::unique_lock guard(lock_);
  for (;;) {
    wake_.wait(guard, [this] { return ending_ || !queue_.empty(); });
    if (queue_.empty()) return;
    const auto work = std::move(queue_.front());
    queue_.pop_front();
    guard.unlock();
    work();
    guard.lock();
  }
}

void JobThread::finish(const std::function<void()>& last) {
  {
    const std::lock_guard guard(lock_);
    if (!ending_ && last) queue_.push_back(last);
    ending_ = true;
  }
  wake_.notify_one();
  if (thread_.joinable()) thread_.join();
}

Napi::Value JobThread::post_last(Napi::Env env, std::function<virt::Value()> work) {
  Napi::Value promise = post(env, std::move(work));
  const std::lock_guard guard(lock_);
  ending_ = true;
  wake_.notify_one();
  return promise;
}

Napi::Value JobThread::post(Napi::Env env, std::function<virt::Value()> work) {
  struct Outcome {
    Napi::Promise::Deferred deferred;
    Value value;
    std::exception_ptr failure;
  };
  auto outcome = std::make_shared<Outcome>(Outcome{Napi::Promise::Deferred::New(env), {}, nullptr});
  const Napi::Promise promise = outcome->deferred.Promise();
  // The function only carries us back to JavaScript's thread.
  auto back = Napi::ThreadSafeFunction::New(env, Napi::Function::New(env, [](const Napi::CallbackInfo&) {}),
                                            "virt-run job", 0, 1);
  const std::lock_guard guard(lock_);
  if (ending_) {
    back.Release();
    outcome->deferred.Reject(Napi::Error::New(env, "the job has ended").Value());
    return promise;
  }
  queue_.emplace_back([work = std::move(work), outcome, back]() mutable {
    try {
      outcome->value = work();
    } catch (...) {
      outcome->failure = std::current_exception();
    }
    back.BlockingCall([outcome](Napi::Env e, const Napi::Function&) {
      const Napi::HandleScope scope(e);
      if (outcome->failure) {
        outcome->deferred.Reject(to_js_error(e, outcome->failure).Value());
      } else {
        outcome->deferred.Resolve(to_js(e, outcome->value));
      }
    });
    back.Release();
  });
  wake_.notify_one();
  return promise;
}

namespace {

Napi::Object progress_object(Napi::Env env, const Progress& progress) {
  Napi::Object o = Napi::Object::New(env);
  o.Set("phase", progress.phase.load());
  o.Set("doneBytes", static_cast<double>(progress.done_bytes.load()));
  o.Set("totalBytes", static_cast<double>(progress.total_bytes.load()));
  return o;
}

// A job with its thread and progress, shared by the JavaScript object and the hook that runs when Node exits.
template <typename Job>
struct Held {
  Progress progress;
  std::unique_ptr<Job> job;
  JobThread thread;
  bool node_exits = false;  // the hook has run, and is gone

  void end() {
    progress.stop = true;
    thread.finish([this] { job.reset(); });
  }
};

// What both kinds of job have: stop(), progress(), close().
template <typename Object, typename Job>
class JobObject : public Napi::ObjectWrap<Object> {
 public:
  explicit JobObject(const Napi::CallbackInfo& info)
      : Napi::ObjectWrap<Object>(info), hook_(info.Env().AddCleanupHook(std::function<void()>([held = held_] {
          held->node_exits = true;
          held->end();
        }))) {}
  ~JobObject() override {
    held_->end();
    if (!held_->node_exits) hook_.Remove(this->Env());
  }

  void stop(const Napi::CallbackInfo&) { held_->progress.stop = true; }
  Napi::Value progress(const Napi::CallbackInfo& info) {
    return progress_object(info.Env(), held_->progress);
  }
  // Ends the job now instead of when the object is collected.
  Napi::Value close(const Napi::CallbackInfo& info) {
    return held_->thread.post_last(info.Env(), [held = held_] {
      held->job.reset();
      return virt::Value();
    });
  }

 protected:
  template <typename F>
  Napi::Value post(const Napi::CallbackInfo& info, F work) {
    return held_->thread.post(info.Env(),
                              [held = held_, work = std::move(work)]() mutable { return work(*held); });
  }

  std::shared_ptr<Held<Job>> held_ = std::make_shared<Held<Job>>();

 private:
  decltype(std::declval<Napi::Env>().AddCleanupHook(std::declval<std::function<void()>>())) hook_;
};

// `new Capture(options, wire?)`: track(), copy(), survey(), read(directoryFd), remap(changes), hold(name, key, reach), thaw(), release().
class JsCapture : public JobObject<JsCapture, CaptureJob> {
 public:
  static Napi::Function define(Napi::Env env) {
    return DefineClass(
        env, "Capture",
        {InstanceMethod<&JsCapture::survey>("survey"), InstanceMethod<&JsCapture::read>("read"),
         InstanceMethod<&JsCapture::track>("track"), InstanceMethod<&JsCapture::copy>("copy"),
         InstanceMethod<&JsCapture::remap>("remap"), InstanceMethod<&JsCapture::hold>("hold"),
         InstanceMethod<&JsCapture::thaw>("thaw"), InstanceMethod<&JsCapture::release>("release"),
         InstanceMethod("stop", static_cast<InstanceVoidMethodCallback>(&JsCapture::stop)),
         InstanceMethod("progress", static_cast<InstanceMethodCallback>(&JsCapture::progress)),
         InstanceMethod("close", static_cast<InstanceMethodCallback>(&JsCapture::close))});
  }

  explicit JsCapture(const Napi::CallbackInfo& info) : JobObject(info) {
    try {
      options_ = from_js(info[0]);
      if (!info[1].IsUndefined()) wire_ = wire_of(info[1]);
    } catch (...) {
      throw to_js_error(info.Env(), std::current_exception());
    }
  }

 private:
  Napi::Value survey(const Napi::CallbackInfo& info) {
    return post(info, [open = opener()](Held<CaptureJob>& held) { return open(held).survey(); });
  }
  Napi::Value track(const Napi::CallbackInfo& info) {
    return post(info, [open = opener()](Held<CaptureJob>& held) { return open(held).track(); });
  }
  Napi::Value copy(const Napi::CallbackInfo& info) {
    return post(info, [](Held<CaptureJob>& held) { return held.job->copy(); });
  }
  // The job is made on its own thread, by its first step: connecting and locking may wait.
  [[nodiscard]] std::function<CaptureJob&(Held<CaptureJob>&)> opener() const {
    return [options = options_, wire = wire_](Held<CaptureJob>& held) -> CaptureJob& {
      if (!held.job) held.job = std::make_unique<CaptureJob>(options, wire, held.progress);
      return *held.job;
    };
  }

  Napi::Value read(const Napi::CallbackInfo& info) {
    const int directory = info[0].As<Napi::Number>().Int32Value();
    return post(info, [directory](Held<CaptureJob>& held) { return held.job->read(directory); });
  }

  Napi::Value remap(const Napi::CallbackInfo& info) {
    return post(info, [changes = from_js(info[0])](Held<CaptureJob>& held) {
      held.job->remap(changes);
      return virt::Value();
    });
  }

  Napi::Value hold(const Napi::CallbackInfo& info) {
    return post(info, [name = from_js(info[0]), key = from_js(info[1]),
                       reach = from_js(info[2])](Held<CaptureJob>& held) {
      return held.job->hold(name.as_string(), key.as_bytes(), reach);
    });
  }

  Napi::Value thaw(const Napi::CallbackInfo& info) {
    return post(info, [](Held<CaptureJob>& held) {
      held.job->thaw();
      return virt::Value();
    });
  }

  Napi::Value release(const Napi::CallbackInfo& info) {
    return post(info, [](Held<CaptureJob>& held) {
      held.job->release();
      return virt::Value();
    });
  }

  virt::Value options_;
  std::shared_ptr<Wire> wire_;
};

// `new Rebuild(plan, launch)`: build(), commit().
class JsRebuild : public JobObject<JsRebuild, RebuildJob> {
 public:
  static Napi::Function define(Napi::Env env) {
    return DefineClass(
        env, "Rebuild",
        {InstanceMethod<&JsRebuild::build>("build"), InstanceMethod<&JsRebuild::commit>("commit"),
         InstanceMethod("stop", static_cast<InstanceVoidMethodCallback>(&JsRebuild::stop)),
         InstanceMethod("progress", static_cast<InstanceMethodCallback>(&JsRebuild::progress)),
         InstanceMethod("close", static_cast<InstanceMethodCallback>(&JsRebuild::close))});
  }

  explicit JsRebuild(const Napi::CallbackInfo& info) : JobObject(info) {
    try {
      LaunchOptions options = launch_options(from_js(info[1]));
      held_->job = std::make_unique<RebuildJob>(from_js(info[0]), std::move(options.plan),
                                                std::move(options.files), held_->progress);
    } catch (...) {
      throw to_js_error(info.Env(), std::current_exception());
    }
  }

 private:
  Napi::Value build(const Napi::CallbackInfo& info) {
    return post(info, [](Held<RebuildJob>& held) { return held.job->build(); });
  }
  Napi::Value commit(const Napi::CallbackInfo& info) {
    return post(info, [](Held<RebuildJob>& held) { return virt::Value(held.job->commit().release()); });
  }
};

}  // namespace

void export_jobs(Napi::Env env, Napi::Object exports) {
  exports.Set("Capture", JsCapture::define(env));
  exports.Set("Rebuild", JsRebuild::define(env));
}

}  // namespace virt
