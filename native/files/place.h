// Putting carried files into a directory: the upper directory of a pod's overlay, or one a user wants them in.
#pragma once

#include "base/value.h"

namespace virt {

// `to`: the directory, which stands for `/` of the paths; `image`: where `name` of an entry lies; `entries` as the
// manifest has them, parents first, of which a file may have `host`, a path on this host, instead of `name`;
// `keep`: what is there already stays as it is; `owner`: give everything its owner.
//
// Gives a list: of each entry `path`, `what` ("written", "there": it is the same, "conflict"), and `lost`, if its extended
// attributes could not be had. Without `keep` whatever is in the way is an OsError.
Value place_files(const Value& request);

}  // namespace virt
