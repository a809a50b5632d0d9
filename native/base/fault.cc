#include "base/fault.h"

#include <unistd.h>
#include <atomic>
#include <charconv>
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
  const std::string_view place = text.substr(0, colon);
  const size_t at = place.find('@');
  if (place.substr(0, at) != name) return;
  if (at != std::string_view::npos) {
    static std::atomic<int> passed{0};
    int nth = 0;
    std::from_chars(place.data() + at + 1, place.data() + place.size(), nth);
    if (++passed != nth) return;
  }
  if (action == "kill") kill(getpid(), SIGKILL);
  if (action == "hang") {
    for (;;) pause();
  }
  throw OsError("ERR_FAULT", "fault", EIO, std::string("the fault point '") + name + "' was asked to fail");
}

}  // namespace virt
