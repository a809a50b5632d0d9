// Sockets of a pod that came from another host: the program's ends have their addresses of there (a stash makes them), and a
// relay pumps what goes through them to and from the holder that the pod left behind; one relay for each holder. Until begin()
// nothing is sent. When the pod is detached again the relays' states go into the image, and another host goes on.
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
  // The programs' ends of the plan's sockets, in its order. `state`: a file of a former relay's, or none; `unread_file`: what
  // waits in their queues, or none. Where threads may be started, with all our rights. 0 or errno.
  int make(const protocol::FarPlan& plan, int state, int unread_file, std::vector<UniqueFd>* programs);
  // From now on, where threads may be started: returns when the holders have let us have them. ESTALE: another host has them.
  // EACCES: one has another key. ETIMEDOUT: it does not answer.
  int begin();
  // What leads where; with `files` the relays stand still and their states are in them, until go_on(). The programs must have
  // stopped. 0 or errno, then perhaps with the program's socket that is the cause.
  int look(std::vector<protocol::FarState>* states, std::vector<UniqueFd>* files, uint64_t* inode);
  // Where threads may be started.
  void go_on();
  // The states are safe, and the pod is no more here.
  void leave();
  // The pod has ended: returns when all that its programs sent last is with the holders.
  void finish();

 private:
  struct Through {
    std::string key, holder;
    std::unique_ptr<relay::Relay> relay;
    uint32_t cut_limit_ms = 0;
    bool thawed = false;                                 // it goes on from a former one's state
    std::vector<std::pair<uint32_t, uint64_t>> sockets;  // channel, the program's socket's inode
  };

  int open(const protocol::FarPlan& plan, int state);
  static int wait_for_holder(Through& through);
  static void wait_for_news(relay::Relay& relay);
  int make_one(Through& through, const protocol::FarSocket& socket, std::string_view unread,
               UniqueFd* program);
  static int make_datagrams(relay::Relay& relay, const protocol::FarSocket& socket, UniqueFd* program);

  Stash stash_;
  std::vector<Through> throughs_;
};

}  // namespace virt::init
