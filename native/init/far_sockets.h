// Sockets of a pod that came from another host: the program's ends have their addresses of there (a stash makes them), and a
// relay pumps what goes through them to and from the holder that the pod left behind. Until begin() nothing is sent.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "init/protocol.h"
#include "relay/relay.h"
#include "relay/stash.h"
#include "sys/fd.h"

namespace virt::init {

// The pod's key as the relay takes it; false if it is of another size.
bool relay_key(std::string_view bytes, relay::Key* key);

class FarSockets {
 public:
  // Where threads may be started, with all our rights. 0 or errno.
  int open(const protocol::FarPlan& plan);
  // The program's end of a socket. 0 or errno.
  int make(const protocol::FarSocket& socket, UniqueFd* program);
  // From now on, where threads may be started: returns when the holder has let us have them. ESTALE: another host has them.
  // EACCES: it has another key. ETIMEDOUT: it does not answer.
  int begin();
  // When no program runs any more: what they wrote last goes out, and the end of each connection.
  void finish();
  [[nodiscard]] relay::Status status() { return relay_->status(); }

 private:
  int wait_for_holder();
  void wait_for_news();
  int make_datagrams(const protocol::FarSocket& socket, UniqueFd* program);

  uint32_t cut_limit_ms_ = 0;
  Stash stash_;
  std::unique_ptr<relay::Relay> relay_;
};

}  // namespace virt::init
