// What files a pod has to take along, looked at while it stands still: everything but their content.
#pragma once

#include "base/value.h"

namespace virt {

// `request`: `root`, the directory that shows what the pod sees ("/proc/7/root"); `paths`, each with `path` (absolute,
// as the pod sees it), and if set `at` (where that lies below root, if not there), `follow` (what a symbolic link
// leads to as well), `tree` (everything below as well); `layers`, upper directories of overlays, each with `at` and
// `upper`; `ancestors`, whether the directories above are listed too. Paths that lead to nothing are left out.
//
// Gives `entries`, each path once and in order, as the manifest has them plus `layer` (which one it was found in) and
// `at`; and `refused`: path and reason of what is there and cannot be taken.
Value list_files(const Value& request);

// Copies regular files that list_files() gave: `root`, `layers` as above, `files` (entries with `name`), `directory`
// and in it `name` the new files. Gives their sizes.
Value copy_files(const Value& request);

}  // namespace virt
