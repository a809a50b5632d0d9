// UTF-8 (RFC 3629): names of files need not be text. No exceptions: used by virt-init.
#pragma once

#include <cstddef>
#include <string_view>

namespace virt {

// The length of the sequence at the front of what is not empty; 0 if it is none.
size_t utf8_sequence(std::string_view text);

}  // namespace virt
