#include "base/fault.h"

#include <unistd.h>
#include <csignal>
#include <cstdlib>
#include <string_view>

#include "base/error.h"

namespace virt {

void fault_point(const char* name) {
  const char* wanted = std::getenv("VIRT_RUN_FAULT");  // NOLINT(concurrency-mt-unsafe): never set at run time
  if (wanted == nullptr) return;
  std::string_view text(wanted);
  const size_t colon = text.find(':');
  const std::string_view action = colon == std::string_view::npos ? "error" : text.substr(colon + 1);
  if (text.substr(0, colon) != name) return;
  if (action == "kill") kill(getpid(), SIGKILL);
  if (action == "hang") {
    for (;;) pause();
  }
  throw OsError("ERR_FAULT", "fault", EIO, std::string("the fault point '") + name + "' was asked to fail");
}

}  // namespace virt
