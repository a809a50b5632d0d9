// Socket addresses, as people read them. No exceptions: used by virt-init.
#pragma once

#include <sys/socket.h>

#include <string>

namespace virt {

// An IP address without its port, or a unix socket's path ("@…" is abstract, unix(7)). Empty for every other family.
// *port is -1 where there is none.
std::string address_text(const sockaddr_storage& address, socklen_t size, int* port);

}  // namespace virt
