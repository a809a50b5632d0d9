#include "binding/worker.h"

#include <exception>
#include <utility>

#include "binding/convert.h"

namespace virt {
namespace {

// Deletes itself.
class Worker : public Napi::AsyncWorker {
 public:
  Worker(Napi::Env env, std::function<Value()> work)
      : AsyncWorker(env), deferred_(Napi::Promise::Deferred::New(env)), work_(std::move(work)) {}
  [[nodiscard]] Napi::Promise promise() const { return deferred_.Promise(); }

 protected:
  void Execute() override {
    try {
      result_ = work_();
    } catch (...) {
      failure_ = std::current_exception();
    }
  }
  void OnOK() override {
    if (failure_) {
      deferred_.Reject(to_js_error(Env(), failure_).Value());
    } else {
      deferred_.Resolve(to_js(Env(), result_));
    }
  }

 private:
  Napi::Promise::Deferred deferred_;
  std::function<Value()> work_;
  Value result_;
  std::exception_ptr failure_;
};

}  // namespace

Napi::Promise run_on_pool(Napi::Env env, std::function<Value()> work) {
  auto* worker = new Worker(env, std::move(work));
  const Napi::Promise promise = worker->promise();
  worker->Queue();
  return promise;
}

}  // namespace virt
