// Values and errors of ours as JavaScript's, and back.
#pragma once

#include <napi.h>

#include <exception>

#include "base/value.h"

namespace virt {

// Whole numbers beyond 2^53 do not occur (value.h); bytes become Buffers.
Napi::Value to_js(Napi::Env env, const Value& value);
// Throws BadValue on what plain data cannot hold (functions, fractions, cycles deeper than 64).
Value from_js(const Napi::Value& value, int depth = 0);

// A plain Error with what we know as properties: code, syscall, errno, errnoName, pid, fd, kind, path, phase,
// attached. src/errors.ts turns it into a VirtError.
Napi::Error to_js_error(Napi::Env env, const std::exception_ptr& failure);

}  // namespace virt
