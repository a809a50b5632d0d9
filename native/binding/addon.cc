// The addon's face: everything native that TypeScript may use. src/native.ts lists and documents it; checks
// and defaults live above.

#include <fcntl.h>
#include <napi.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <string>

#include "base/error.h"
#include "binding/convert.h"
#include "binding/descriptors.h"
#include "binding/files.h"
#include "binding/job.h"
#include "binding/launch_options.h"
#include "binding/probe.h"
#include "binding/wire.h"
#include "binding/worker.h"
#include "engine/control_client.h"
#include "memory/page_store.h"
#include "sys/file.h"
#include "sys/message.h"

namespace virt {
namespace {

// Runs f; what it throws becomes a JavaScript exception.
template <typename F>
Napi::Value guarded(const Napi::CallbackInfo& info, F f) {
  try {
    return f();
  } catch (const Napi::Error&) {
    throw;
  } catch (...) {
    throw to_js_error(info.Env(), std::current_exception());
  }
}

// launch(options) → fd of the first control connection
Napi::Value js_launch(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    const LaunchOptions options = launch_options(from_js(info[0]));
    return Napi::Number::New(info.Env(), launch(options.plan, options.files).release());
  });
}

// connect(path) → fd; the socket and its directory are checked
Napi::Value js_connect(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    return Napi::Number::New(info.Env(), ControlClient::connect(info[0].As<Napi::String>()).release());
  });
}

// peerPid(fd) → host pid of init at the other end
Napi::Value js_peer_pid(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    UniqueFd dup(fcntl(info[0].As<Napi::Number>().Int32Value(), F_DUPFD_CLOEXEC, 0));
    return Napi::Number::New(info.Env(), ControlClient(std::move(dup)).peer_pid());
  });
}

// verifyPages(directory, pagesInPart) → promise: every page of an image read and compared with its hash
Napi::Value js_verify_pages(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    std::vector<uint64_t> parts;
    const Value counts = from_js(info[1]);
    for (const Value& pages : counts.as_list())
      parts.push_back(static_cast<uint64_t>(pages.as_int(0, kPartPages)));
    const std::string path = info[0].As<Napi::String>();
    return run_on_pool(info.Env(), [path, parts = std::move(parts)] {
      const UniqueFd directory = open_file(path, O_PATH | O_DIRECTORY);
      const std::atomic<bool> never = false;
      PageFile(directory.get(), parts).verify(2, never);
      return Value();
    });
  });
}

// sendFds(fd, bytes, fds): bytes on a control connection with descriptors riding on them
Napi::Value js_send_fds(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    const auto bytes = info[1].As<Napi::Buffer<char>>();
    const auto list = info[2].As<Napi::Array>();
    std::vector<int> fds;
    for (uint32_t i = 0; i < list.Length(); ++i) fds.push_back(list.Get(i).As<Napi::Number>().Int32Value());
    const int error = send_with_fds(info[0].As<Napi::Number>().Int32Value(), bytes.Data(), bytes.Length(),
                                    fds.data(), fds.size());
    if (error != 0) throw OsError("sendmsg", -error, "passing descriptors to the pod's init");
    return info.Env().Undefined();
  });
}

// tryLock(fd) → true if we have the exclusive flock(2) now
Napi::Value js_try_lock(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    const int fd = info[0].As<Napi::Number>().Int32Value();
    if (flock(fd, LOCK_EX | LOCK_NB) == 0) return Napi::Boolean::New(info.Env(), true);
    if (errno != EWOULDBLOCK) throw OsError("flock", errno, "locking a file");
    return Napi::Boolean::New(info.Env(), false);
  });
}

// isTerminal(0) → true
Napi::Value js_is_terminal(const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(), isatty(info[0].As<Napi::Number>().Int32Value()) == 1);
}

// randomHex(6) → 12 hex digits
Napi::Value js_random_hex(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    unsigned char bytes[32];
    const size_t size = std::min<size_t>(info[0].As<Napi::Number>().Uint32Value(), sizeof bytes);
    if (getrandom(bytes, size, 0) != static_cast<ssize_t>(size))
      throw OsError("getrandom", errno, "making a random name");
    std::string text;
    for (size_t i = 0; i < size; ++i) {
      constexpr char kDigits[] = "0123456789abcdef";
      text += kDigits[bytes[i] >> 4];
      text += kDigits[bytes[i] & 15];
    }
    return Napi::String::New(info.Env(), text);
  });
}

// errnoName(1) → "EPERM"
Napi::Value js_errno_name(const Napi::CallbackInfo& info) {
  return Napi::String::New(info.Env(), errno_name(info[0].As<Napi::Number>().Int32Value()));
}

// probe() → what this host can do
Napi::Value js_probe(const Napi::CallbackInfo& info) {
  return guarded(info, [&] { return to_js(info.Env(), probe_host()); });
}

// encodeExec(plan) → payload of an exec request
Napi::Value js_encode_exec(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    const Value o = from_js(info[0]);
    protocol::ExecPlan plan;
    plan.stdio = stdio_named(o.get_string("stdio", "inherit"));
    plan.rows = static_cast<uint16_t>(o.get_int("rows", 24));
    plan.columns = static_cast<uint16_t>(o.get_int("columns", 80));
    plan.cwd = o.get_string("cwd", "");
    for (const Value& v : o.at("argv").as_list()) plan.argv.push_back(v.as_string());
    for (const Value& v : o.at("env").as_list()) plan.env.push_back(v.as_string());
    const std::string bytes = encode(plan);
    return Napi::Buffer<char>::Copy(info.Env(), bytes.data(), bytes.size());
  });
}

Napi::Object initialise(Napi::Env env, Napi::Object exports) {
  exports.Set("launch", Napi::Function::New(env, js_launch));
  exports.Set("connect", Napi::Function::New(env, js_connect));
  exports.Set("peerPid", Napi::Function::New(env, js_peer_pid));
  exports.Set("verifyPages", Napi::Function::New(env, js_verify_pages));
  exports.Set("sendFds", Napi::Function::New(env, js_send_fds));
  exports.Set("tryLock", Napi::Function::New(env, js_try_lock));
  exports.Set("isTerminal", Napi::Function::New(env, js_is_terminal));
  exports.Set("randomHex", Napi::Function::New(env, js_random_hex));
  exports.Set("errnoName", Napi::Function::New(env, js_errno_name));
  exports.Set("probe", Napi::Function::New(env, js_probe));
  exports.Set("encodeExec", Napi::Function::New(env, js_encode_exec));
  export_descriptors(env, exports);
  export_files(env, exports);
  export_jobs(env, exports);
  export_wire(env, exports);
  return exports;
}

}  // namespace
}  // namespace virt

static Napi::Object virt_run_initialise(Napi::Env env, Napi::Object exports) {
  return virt::initialise(env, exports);
}
NODE_API_MODULE(virt_run, virt_run_initialise)
