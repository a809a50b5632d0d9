// Work that takes long, on a thread of Node's pool.
#pragma once

#include <napi.h>

#include <functional>

#include "base/value.h"

namespace virt {

// A promise for what `work` gives, which may throw.
Napi::Promise run_on_pool(Napi::Env env, std::function<Value()> work);

}  // namespace virt
