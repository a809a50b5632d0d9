// One supervisor's end of the control socket, inside virt-init: frames in, frames out, never blocking.
#pragma once

#include <cstdint>
#include <ctime>
#include <deque>
#include <string>
#include <string_view>
#include <vector>

#include "init/protocol.h"
#include "sys/fd.h"

namespace virt::init {

struct Frame {
  protocol::Type type{};
  uint32_t number = 0;
  std::string payload;
};

class Connection {
 public:
  explicit Connection(UniqueFd fd) : fd_(std::move(fd)) {}
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;
  ~Connection();

  [[nodiscard]] int fd() const { return fd_.get(); }
  [[nodiscard]] bool open() const { return static_cast<bool>(fd_); }
  void close() { fd_.reset(); }

  // Reads what is there. False: the other side is gone or sent what is no frame; close it.
  bool receive();
  // The next whole frame, if one has arrived.
  bool next(Frame* frame);
  // Descriptors that came with the frames so far, oldest first.
  std::vector<UniqueFd> take_fds();
  // The oldest of them alone; none if there is none.
  UniqueFd take_fd();

  void event(protocol::Type type, std::string_view payload);
  // `fd` is closed when it has been sent; of `fds` copies are sent.
  void reply(const Frame& request, int error, std::string_view payload = {}, int fd = -1);
  void reply_with(const Frame& request, std::string_view payload, const std::vector<int>& fds);
  // Sends what the socket takes now. False: the other side is gone.
  bool flush();
  [[nodiscard]] size_t unsent() const { return out_.size() - sent_; }
  // When it last took anything, for viewers that are stuck (CLOCK_MONOTONIC seconds).
  [[nodiscard]] time_t last_progress() const { return last_progress_; }

  bool subscribed = false;
  bool seeding = false;     // the pod is being rebuilt for this one
  bool far_frozen = false;  // relays stand still for it
  bool holding = false;     // what it gave to be held is let go of with it, until the pod is released
  bool hooks = false;       // it answers for the pod's hooks
  int console = -1;         // the console it views, or -1
  bool read_only = false;
  bool patient = false;  // its output is never dropped: a supervisor's pipe, not a person's screen
  std::string lock;      // what it holds the pod's lock for; empty: nothing

 private:
  void put(protocol::Type type, uint16_t flags, uint32_t number, std::string_view head,
           std::string_view body);

  UniqueFd fd_;
  std::string in_, out_;
  size_t sent_ = 0;
  time_t last_progress_ = 0;
  std::vector<UniqueFd> fds_;
  std::deque<std::pair<size_t, int>> out_fds_;  // offset in the stream of out_, descriptor that rides there
};

time_t monotonic_seconds();

}  // namespace virt::init
