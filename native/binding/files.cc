#include "binding/files.h"

#include <exception>
#include <utility>

#include "base/value.h"
#include "binding/convert.h"
#include "files/list.h"
#include "files/place.h"

namespace virt {
namespace {

using Work = Value (*)(const Value&);

// One call of a function from data to data on a thread of Node's pool. Deletes itself.
class Worker : public Napi::AsyncWorker {
 public:
  Worker(Napi::Env env, Work work, Value request)
      : AsyncWorker(env),
        deferred_(Napi::Promise::Deferred::New(env)),
        work_(work),
        request_(std::move(request)) {}
  [[nodiscard]] Napi::Promise promise() const { return deferred_.Promise(); }

 protected:
  void Execute() override {
    try {
      result_ = work_(request_);
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
  Work work_;
  Value request_, result_;
  std::exception_ptr failure_;
};

template <Value (*work)(const Value&)>
Napi::Value js_call(const Napi::CallbackInfo& info) {
  try {
    auto* worker = new Worker(info.Env(), work, from_js(info[0]));
    const Napi::Promise promise = worker->promise();
    worker->Queue();
    return promise;
  } catch (const Napi::Error&) {
    throw;
  } catch (...) {
    throw to_js_error(info.Env(), std::current_exception());
  }
}

}  // namespace

void export_files(Napi::Env env, Napi::Object exports) {
  exports.Set("listFiles", Napi::Function::New(env, js_call<list_files>));
  exports.Set("copyFiles", Napi::Function::New(env, js_call<copy_files>));
  exports.Set("placeFiles", Napi::Function::New(env, js_call<place_files>));
}

}  // namespace virt
