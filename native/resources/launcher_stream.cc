// What the launcher gave as standard input, output and error (a pipe, a socket, an outside terminal): at
// reattach it becomes what the new launcher gives. What was still unread in a standard input that init keeps
// is in the other end's hands: init is not frozen and owns it.
#include <fcntl.h>
#include <sys/syscall.h>

#include "resources/capture_context.h"
#include "resources/kinds.h"
#include "resources/pipe_content.h"
#include "resources/rebuild_context.h"

namespace virt {
namespace {

bool recognise(const Handle& h, const CaptureContext& c) {
  bool of_exec = false;
  return c.launcher_stream(h.st, &of_exec).has_value();
}

void capture(Handle& h, CaptureContext& c) {
  bool of_exec = false;
  const int stream = *c.launcher_stream(h.st, &of_exec);
  if (of_exec) {
    c.block(h, "ERR_EXEC_STREAM", "a stream of a command that was started with `exec` and is still running",
            "end that command, or accept its loss with --drop launcher-stream");
  }
  h.record.set("stream", stream);
  // Input that was sent but not read yet goes with the pod: the pipe ends with it.
  if (S_ISFIFO(h.st.st_mode) && stream == 0 && h.access() == O_RDONLY) {
    const std::string waiting = peek_pipe(h.dup.get());
    if (!waiting.empty()) h.record.set("waiting", Value::bytes(waiting.data(), waiting.size()));
  }
}

int rebuild(const Value& record, RebuildContext& c) {
  const auto stream = static_cast<int>(record.at("stream").as_int(0, 2));
  Batch b = c.batch();
  const size_t dup = b.call(SYS_fcntl, stream, F_DUPFD_CLOEXEC, 3);
  const int fd = c.run_for_fd(b, dup, "fcntl", "taking over a launcher's stream");
  // The launcher's own description: only what the program itself had set on it.
  const UniqueFd mine = c.take(fd);
  if ((record.get_int("flags", 0) & O_NONBLOCK) != 0)
    set_status_flags(mine.get(), fcntl(mine.get(), F_GETFL) | O_NONBLOCK);
  return fd;
}

}  // namespace

const Kind kLauncherStream{"launcher-stream", recognise, capture, rebuild};

}  // namespace virt
