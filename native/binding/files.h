// list_files, copy_files and place_files as promises: see native.ts.
#pragma once

#include <napi.h>

namespace virt {

void export_files(Napi::Env env, Napi::Object exports);

}  // namespace virt
