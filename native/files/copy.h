// The content of regular files, from one to another, holes left out; and comparing two.
#pragma once

#include <cstdint>

namespace virt {

// Copies from the start of `from` until its end, or `most` bytes; gives the size of what `to` then holds. With
// `leave_zeros` pages of zeros become holes although `from` has none there (it came through a stream).
uint64_t copy_content(int from, int to, uint64_t most, bool leave_zeros);

// True if both are equal in size and every byte.
bool same_content(int one, int other);

}  // namespace virt
