// Finds equal and zero pages fast, and notices a page that changed on disk. Not cryptographic: whoever uses
// it to call two pages equal compares their bytes as well. The value is part of the image format
// ("page-hash-1").
#pragma once

#include <cstdint>
#include <cstring>

namespace virt {

struct PageDigest {
  uint64_t hash = 0;
  bool zero = false;
};

// `page` is 4096 bytes. Four independent multiply chains keep the multiplier busy; about 10 GB/s.
inline PageDigest digest_page(const void* page) {
  constexpr uint64_t kFactor = 0x9E3779B97F4A7C15ULL;
  uint64_t a = 0x243F6A8885A308D3ULL, b = 0x13198A2E03707344ULL, c = 0xA4093822299F31D0ULL,
           d = 0x082EFA98EC4E6C89ULL, all = 0;
  const char* p = static_cast<const char*>(page);
  for (int i = 0; i < 4096; i += 32) {
    uint64_t w[4];
    std::memcpy(w, p + i, sizeof w);
    all |= w[0] | w[1] | w[2] | w[3];
    a = (a ^ w[0]) * kFactor;
    b = (b ^ w[1]) * kFactor;
    c = (c ^ w[2]) * kFactor;
    d = (d ^ w[3]) * kFactor;
    // Multiplication only carries upwards: fold the high half back so that late words reach every bit.
    a ^= a >> 32;
    b ^= b >> 29;
    c ^= c >> 31;
    d ^= d >> 30;
  }
  uint64_t h = a;
  for (const uint64_t x : {b, c, d}) {
    h = (h ^ x) * kFactor;
    h ^= h >> 32;
  }
  return {h, all == 0};
}

// A second hash, of other words and under a key that only one process knows: with digest_page() as good as comparing bytes
// where nobody can compute either at will. Half as fast.
inline uint64_t keyed_page_hash(const void* page, uint64_t key) {
  constexpr uint64_t kFactor = 0xD6E8FEB86659FD93ULL;
  const char* p = static_cast<const char*>(page);
  uint64_t lanes[4] = {key, key ^ 0xC2B2AE3D27D4EB4FULL, ~key, key * kFactor};
  for (int i = 0; i < 4096; i += 32) {
    uint64_t w[4];
    std::memcpy(w, p + i, sizeof w);
    for (int k = 0; k < 4; ++k) {
      // A product of two 64-bit words, both halves: each bit of the word reaches each bit of the lane.
      const unsigned __int128 product =
          static_cast<unsigned __int128>(lanes[k] ^ w[k]) * ((kFactor ^ (key << k)) | 1);
      lanes[k] = static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64) ^ w[k];
    }
  }
  uint64_t h = key;
  for (const uint64_t lane : lanes) {
    h = (h ^ lane) * kFactor;
    h ^= h >> 32;
  }
  return h;
}

}  // namespace virt
