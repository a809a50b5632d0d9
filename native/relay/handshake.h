// How two ends of a tunnel prove to one another that they know the pod's key, and agree on keys that only this tunnel has.
// One hello each way, the relay's first; what is sealed afterwards proves that a hello is no recording. No exceptions.
#pragma once

#include <cstddef>
#include <cstdint>

#include "relay/seal.h"

namespace virt::relay {

// Known to both ends, from the image.
struct Key {
  unsigned char bytes[32];
};

// The holder keeps the outside sockets and is dialled; the relay has the program's and dials.
enum class Role : uint8_t { holder, relay };

inline constexpr uint16_t kVersion = 2;

// The first bytes of a tunnel, in the clear. The beginning, up to the version, is the same for all versions.
struct Hello {
  char magic[8];
  uint16_t version;
  Role role;
  uint8_t ciphers;  // bit 0: AES-256-GCM
  uint32_t reserved;
  unsigned char ephemeral[32];  // X25519
  unsigned char
      proof[32];  // BLAKE2b, keyed with the pod's key, of all before it (and of the hello that it answers)
};
static_assert(sizeof(Hello) == 80);

enum class Greeting { accepted, other_version, refused };

class Handshake {
 public:
  Handshake(Role role, const Key& key) : role_(role), key_(key) {}
  Handshake(const Handshake&) = delete;
  Handshake& operator=(const Handshake&) = delete;
  ~Handshake();
  // Our own hello: a relay's at once, a holder's after it has taken the relay's.
  Hello make();
  // The other's. Looks at the proof before anything that costs.
  Greeting take(const Hello& theirs);
  // What a peer of another version is told.
  static Hello version_only(Role role);
  // After both: the keys of both directions. False if the peer's key is none.
  bool agree(Seal* outgoing, Seal* incoming);

 private:
  void prove(const Hello& hello, unsigned char proof[32]) const;

  Role role_;
  Key key_;
  Hello ours_{}, theirs_{};
  unsigned char secret_[32] = {};
};

}  // namespace virt::relay
