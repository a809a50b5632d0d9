#include "relay/seal.h"

#include <cstring>

namespace virt::relay {

namespace {
unsigned char* bytes(char* p) { return reinterpret_cast<unsigned char*>(p); }
const unsigned char* bytes(const char* p) { return reinterpret_cast<const unsigned char*>(p); }
}  // namespace

bool aes_available() { return crypto_aead_aes256gcm_is_available() == 1; }

Seal::~Seal() {
  sodium_memzero(&aes_, sizeof aes_);
  sodium_memzero(key_, sizeof key_);
}

void Seal::set(Cipher cipher, const unsigned char key[kSealKeyBytes]) {
  cipher_ = cipher;
  count_ = 0;
  std::memcpy(key_, key, sizeof key_);
  if (cipher_ == Cipher::aes256_gcm) crypto_aead_aes256gcm_beforenm(&aes_, key_);
}

void Seal::next_nonce(unsigned char nonce[12]) {
  std::memset(nonce, 0, 12);
  std::memcpy(nonce, &count_, sizeof count_);
  ++count_;
}

void Seal::close(char* text, size_t size, const char* clear, size_t clear_size) {
  unsigned char nonce[12];
  next_nonce(nonce);
  if (cipher_ == Cipher::aes256_gcm) {
    crypto_aead_aes256gcm_encrypt_detached_afternm(bytes(text), bytes(text) + size, nullptr, bytes(text),
                                                   size, bytes(clear), clear_size, nullptr, nonce, &aes_);
  } else {
    crypto_aead_chacha20poly1305_ietf_encrypt_detached(bytes(text), bytes(text) + size, nullptr, bytes(text),
                                                       size, bytes(clear), clear_size, nullptr, nonce, key_);
  }
}

bool Seal::open(char* text, size_t size, const char* clear, size_t clear_size) {
  unsigned char nonce[12];
  next_nonce(nonce);
  if (cipher_ == Cipher::aes256_gcm) {
    return crypto_aead_aes256gcm_decrypt_detached_afternm(bytes(text), nullptr, bytes(text), size,
                                                          bytes(text) + size, bytes(clear), clear_size, nonce,
                                                          &aes_) == 0;
  }
  return crypto_aead_chacha20poly1305_ietf_decrypt_detached(bytes(text), nullptr, bytes(text), size,
                                                            bytes(text) + size, bytes(clear), clear_size,
                                                            nonce, key_) == 0;
}

}  // namespace virt::relay
