// Names of unix sockets and their addresses (unix(7)). A name is what bind(2) takes: a path, or for abstract
// ones a NUL byte and bytes. Empty: unnamed.
#pragma once

#include <sys/socket.h>
#include <sys/un.h>

#include <string>
#include <utility>

#include "resources/capture_context.h"

namespace virt {

std::string unix_name_from(const sockaddr_un& address, socklen_t size);
// Throws BadValue if the name is too long for an address.
std::pair<sockaddr_un, socklen_t> unix_address(const std::string& name);

// The name of a socket of ours, and of the one it is connected to (empty also if there is none).
std::string own_unix_name(int fd);
std::string peer_unix_name(int fd);

// The absolute path of the socket file, for a name that may be relative to where the program was at bind(2).
// Empty if it cannot be found.
std::string socket_file_path(const std::string& name, const Handle& handle, CaptureContext& context);

}  // namespace virt
