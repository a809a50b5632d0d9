// socketPair and takeStandardStreams: see native.ts.
#pragma once

#include <napi.h>

namespace virt {

void export_descriptors(Napi::Env env, Napi::Object exports);

}  // namespace virt
