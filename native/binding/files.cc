#include "binding/files.h"

#include <exception>

#include "base/value.h"
#include "binding/convert.h"
#include "binding/worker.h"
#include "files/list.h"
#include "files/place.h"

namespace virt {
namespace {

template <Value (*work)(const Value&)>
Napi::Value js_call(const Napi::CallbackInfo& info) {
  try {
    return run_on_pool(info.Env(), [request = from_js(info[0])] { return work(request); });
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
