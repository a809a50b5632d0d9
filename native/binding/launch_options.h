// Launch options as TypeScript gives them, as the plan that virt-init takes.
#pragma once

#include "base/value.h"
#include "engine/launch.h"

namespace virt {

struct LaunchOptions {
  protocol::LaunchPlan plan;
  LaunchFiles files;
};

// {init, socket, stateDir, stdio: "inherit"|"streams"|"terminal", fds: [0,1,2], rows, columns, keepInput, viewed, patient,
// rebuild,
//  ptsIndex, hostname, cwd, remaps: [{from, to}], argv, env: ["K=V"]}
LaunchOptions launch_options(const Value& options);
protocol::Stdio stdio_named(const std::string& name);

}  // namespace virt
