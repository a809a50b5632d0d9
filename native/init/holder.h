// The holder: what PID 1 of a detached pod becomes when the pod had connections to outside. It keeps the very sockets, so
// that peers see a program that is slow and clients wait in the backlog, until a reattach on this host takes them
// (SCM_RIGHTS), a relay on another host pumps what goes through them, or it is told to end. One thread, one poll loop, a socket
// of its own beside the pod's; what is pumped has a thread of its own.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "init/connection.h"
#include "init/protocol.h"
#include "relay/relay.h"
#include "sys/fd.h"
#include "sys/tcp_silence.h"

namespace virt::init {

class Holder {
 public:
  Holder() = default;
  Holder(const Holder&) = delete;
  Holder& operator=(const Holder&) = delete;
  ~Holder();
  // A socket called `name` in `directory`. `key`: whoever takes what is held must know it. 0 or errno.
  int listen(int directory, const std::string& name, std::string_view key);
  // Relays of other hosts come to this address (a sockaddr of TCP; port 0: any). Where threads may be started, later: start().
  // `cut_limit_ms`: how long the way to a relay may be cut; 0: relay::Options knows.
  int listen_for_others(std::string_view address, uint32_t cut_limit_ms);
  [[nodiscard]] uint16_t port() const { return port_; }
  // Takes over `fd`, a handle of the image. 0 or errno.
  int add(uint32_t id, protocol::HeldSort sort, UniqueFd fd);
  // The pod is detached. Where threads may be started. 0 or errno.
  int start();

  // Until nothing is held any more, or SIGTERM, SIGINT or SIGHUP comes.
  void run();

 private:
  struct Held {
    uint32_t id;
    protocol::HeldSort sort;
    UniqueFd socket;
    SpokenOptions spoken;  // of kRepair
  };

  void accept_taker();
  void handle(Connection& c, const Frame& f);
  void handle_take(Connection& c, const Frame& f);
  void handle_take_back(Connection& c, const Frame& f, uint32_t from);
  void handle_drop(Connection& c, const Frame& f);
  [[nodiscard]] bool knows_key(std::string_view key) const;
  [[nodiscard]] protocol::HoldStatus status();

  int start_relay();
  bool look_at_relay();

  UniqueFd directory_, listener_, far_listener_;
  uint16_t port_ = 0;
  relay::Options options_;
  std::unique_ptr<relay::Relay> relay_;
  bool pumps_ = false;  // anything that a relay pumps
  bool detached_ = false;
  bool gone_on_ = false;  // a relay has come: the pod is on another host
  std::string name_, key_;
  std::vector<Held> held_;
  std::vector<std::unique_ptr<Connection>> connections_;
  const Connection* taker_ = nullptr;  // one at a time
  int64_t since_ns_ = 0;
};

}  // namespace virt::init
