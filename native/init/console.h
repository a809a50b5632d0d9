// A console: the standard streams of one program as init keeps them, a pty or pipes, with its log and
// viewers. With Stdio::kInherit there is nothing to keep and no Console.
#pragma once

#include <sys/types.h>

#include <string>
#include <string_view>

#include "init/protocol.h"
#include "init/step.h"
#include "sys/fd.h"

namespace virt::init {

// The pod's output on disk: `log` in the state directory, and `log.1` before it when it grew too large.
class Log {
 public:
  void open(int state_dir);
  void append(std::string_view bytes);

 private:
  int dir_ = -1;
  UniqueFd file_;
  off_t size_ = 0;
};

class Console {
 public:
  // Makes a pty (with number `index` if it is not -1) or pipes; fds() are then the program's three.
  Step make(protocol::Stdio kind, uint16_t rows, uint16_t columns, int index, bool input);

  [[nodiscard]] protocol::Stdio kind() const { return kind_; }
  [[nodiscard]] int program_fd(int n) const;
  // The program has its descriptors: keep only our own ends.
  void started();

  [[nodiscard]] int master() const { return master_.get(); }
  [[nodiscard]] unsigned index() const { return index_; }
  // What init reads from: the master as stream 1, or the pipes of stream 1 and 2. -1 when that has ended.
  [[nodiscard]] int source(int stream) const;
  // Reads what is there into *bytes. False when the stream has ended.
  bool read_from(int stream, std::string* bytes);
  void resize(uint16_t rows, uint16_t columns);
  // Somebody has just come to look: make the foreground program draw itself again.
  void redraw();

  // Input waits here until the program takes it; `wanted` says there is some and where to poll for room.
  void input(std::string_view bytes);
  void end_input() { input_ended_ = true; }
  bool flush_input();
  [[nodiscard]] int input_fd() const;
  [[nodiscard]] bool input_waits() const { return !input_.empty() || (input_ended_ && in_); }
  [[nodiscard]] size_t input_size() const { return input_.size(); }

  pid_t owner = 0;      // the program it belongs to, as the pod sees it
  bool paused = false;  // a viewer is slow: the program waits, as it would for a slow terminal

 private:
  protocol::Stdio kind_ = protocol::Stdio::kInherit;
  unsigned index_ = 0;
  UniqueFd master_, slave_;  // init keeps the slave open, so that the master never hangs up
  UniqueFd in_, out_, err_;  // our ends
  UniqueFd their_in_, their_out_, their_err_;
  std::string input_;
  bool input_ended_ = false;
};

}  // namespace virt::init
