// What waits in a pipe, read without taking it out.
#pragma once

#include <string>

namespace virt {

// `read_end` is a descriptor of ours that can read the pipe. tee(2) copies references, so nothing is
// consumed.
std::string peek_pipe(int read_end);

}  // namespace virt
