#include "relay/handshake.h"

#include <cstring>

namespace virt::relay {
namespace {

constexpr char kMagic[8] = {'v', 'i', 'r', 't', 'r', 'l', 'a', 'y'};
constexpr uint8_t kAes = 1;

}  // namespace

Handshake::~Handshake() {
  sodium_memzero(secret_, sizeof secret_);
  sodium_memzero(&key_, sizeof key_);
}

Hello Handshake::version_only(Role role) {
  Hello hello{};
  std::memcpy(hello.magic, kMagic, sizeof kMagic);
  hello.version = kVersion;
  hello.role = role;
  return hello;
}

// A holder's proof covers the relay's hello too, so it can't be a recording.
void Handshake::prove(const Hello& hello, unsigned char proof[32]) const {
  crypto_generichash_state state;
  crypto_generichash_init(&state, key_.bytes, sizeof key_.bytes, 32);
  if (hello.role == Role::holder) {
    const Hello& first = role_ == Role::relay ? ours_ : theirs_;
    crypto_generichash_update(&state, reinterpret_cast<const unsigned char*>(&first), sizeof first);
  }
  crypto_generichash_update(&state, reinterpret_cast<const unsigned char*>(&hello), offsetof(Hello, proof));
  crypto_generichash_final(&state, proof, 32);
}

Hello Handshake::make() {
  ours_ = version_only(role_);
  ours_.ciphers = aes_available() ? kAes : 0;
  randombytes_buf(secret_, sizeof secret_);
  crypto_scalarmult_base(ours_.ephemeral, secret_);
  prove(ours_, ours_.proof);
  return ours_;
}

Greeting Handshake::take(const Hello& theirs) {
  if (std::memcmp(theirs.magic, kMagic, sizeof kMagic) != 0) return Greeting::refused;
  if (theirs.version != kVersion) return Greeting::other_version;
  if (theirs.role != (role_ == Role::holder ? Role::relay : Role::holder)) return Greeting::refused;
  theirs_ = theirs;
  unsigned char proof[32];
  prove(theirs, proof);
  return sodium_memcmp(proof, theirs.proof, sizeof proof) == 0 ? Greeting::accepted : Greeting::refused;
}

bool Handshake::agree(Seal* outgoing, Seal* incoming) {
  unsigned char shared[32], keys[2 * kSealKeyBytes];
  if (crypto_scalarmult(shared, secret_, theirs_.ephemeral) != 0) return false;
  const Hello& first = role_ == Role::relay ? ours_ : theirs_;
  const Hello& second = role_ == Role::relay ? theirs_ : ours_;
  crypto_generichash_state state;
  crypto_generichash_init(&state, key_.bytes, sizeof key_.bytes, sizeof keys);
  crypto_generichash_update(&state, shared, sizeof shared);
  crypto_generichash_update(&state, reinterpret_cast<const unsigned char*>(&first), sizeof first);
  crypto_generichash_update(&state, reinterpret_cast<const unsigned char*>(&second), sizeof second);
  crypto_generichash_final(&state, keys, sizeof keys);
  const Cipher cipher =
      (ours_.ciphers & theirs_.ciphers & kAes) != 0 ? Cipher::aes256_gcm : Cipher::chacha20_poly1305;
  const unsigned char* relays = keys;
  const unsigned char* holders = keys + kSealKeyBytes;
  outgoing->set(cipher, role_ == Role::relay ? relays : holders);
  incoming->set(cipher, role_ == Role::relay ? holders : relays);
  sodium_memzero(shared, sizeof shared);
  sodium_memzero(secret_, sizeof secret_);
  sodium_memzero(keys, sizeof keys);
  return true;
}

}  // namespace virt::relay
