// A JavaScript object around one end of a move (move/wire.h): sending and receiving each have a thread of their own, so that
// neither waits for the other.
#pragma once

#include <napi.h>

#include <memory>

#include "move/wire.h"

namespace virt {

// The Wire of a JavaScript object that `new Wire()` made; TypeError otherwise.
std::shared_ptr<Wire> wire_of(const Napi::Value& object);

// Adds Wire to the addon's exports.
void export_wire(Napi::Env env, Napi::Object exports);

}  // namespace virt
