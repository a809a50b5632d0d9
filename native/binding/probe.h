// What this host can do, found by trying, not by version. For `virt-run doctor` and for the checks before a
// reattach.
#pragma once

#include "base/value.h"

namespace virt {

// {kernel, arch, features: {name: true | "why not"}, xstate: […]}
Value probe_host();

}  // namespace virt
