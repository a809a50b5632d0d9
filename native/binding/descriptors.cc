#include "binding/descriptors.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <exception>

#include "base/error.h"
#include "binding/convert.h"
#include "sys/fd.h"

namespace virt {
namespace {

// Gives the two descriptors to JavaScript, which closes them from now on.
template <typename F>
Napi::Value two_descriptors(Napi::Env env, F make) {
  try {
    UniqueFd pair[2];
    make(pair);
    Napi::Array out = Napi::Array::New(env, 2);
    for (uint32_t i = 0; i < 2; ++i) out.Set(i, Napi::Number::New(env, pair[i].get()));
    for (UniqueFd& fd : pair) (void)fd.release();
    return out;
  } catch (const Napi::Error&) {
    throw;
  } catch (...) {
    throw to_js_error(env, std::current_exception());
  }
}

// socketPair() → [fd, fd], connected streams
Napi::Value js_socket_pair(const Napi::CallbackInfo& info) {
  return two_descriptors(info.Env(), [](UniqueFd* pair) {
    int fds[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) != 0)
      throw OsError("socketpair", errno, "making a pair of sockets");
    for (int i = 0; i < 2; ++i) pair[i].reset(fds[i]);
  });
}

// takeStandardStreams() → what 0 and 1 were; now they are /dev/null and what 2 is
Napi::Value js_take_standard_streams(const Napi::CallbackInfo& info) {
  return two_descriptors(info.Env(), [](UniqueFd* pair) {
    for (int i = 0; i < 2; ++i) {
      pair[i].reset(fcntl(i, F_DUPFD_CLOEXEC, 3));
      if (!pair[i]) throw OsError("fcntl", errno, "taking the standard streams");
    }
    const UniqueFd null(open("/dev/null", O_RDONLY | O_CLOEXEC));
    if (!null) throw OsError("open", errno, "opening /dev/null");
    if (dup2(null.get(), STDIN_FILENO) < 0 || dup2(STDERR_FILENO, STDOUT_FILENO) < 0)
      throw OsError("dup2", errno, "replacing the standard streams");
  });
}

}  // namespace

void export_descriptors(Napi::Env env, Napi::Object exports) {
  exports.Set("socketPair", Napi::Function::New(env, js_socket_pair));
  exports.Set("takeStandardStreams", Napi::Function::New(env, js_take_standard_streams));
}

}  // namespace virt
