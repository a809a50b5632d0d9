#include "resources/kinds.h"

namespace virt {

const std::vector<const Kind*>& kinds() {
  // The order matters where one description fits two: what the launcher gave before pipes and terminals,
  // terminals before devices, and the refusal last.
  static const std::vector<const Kind*> all = {
      &kLauncherStream, &kTerminal,   &kMemfd,   &kRegularFile, &kDirectory, &kPathHandle,
      &kCharDevice,     &kPipe,       &kEventfd, &kEpoll,       &kTimerfd,   &kSignalfd,
      &kUnixSocket,     &kInetSocket, &kGiven,   &kUnsupported,
  };
  return all;
}

const Kind* kind_named(const std::string& name) {
  for (const Kind* kind : kinds()) {
    if (name == kind->name) return kind;
  }
  return nullptr;
}

}  // namespace virt
