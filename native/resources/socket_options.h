// Socket options that a program has changed: those whose value differs from a fresh socket's (socket(7),
// tcp(7), ip(7), ipv6(7), unix(7)).
#pragma once

#include <string>
#include <vector>

#include "base/value.h"

namespace virt {

// The value of each option that there is, in the order of our table; empty where the socket has no such option.
using OptionValues = std::vector<std::string>;
OptionValues option_values(int fd);
// A list of [level, name, bytes]. `fresh`: of a socket of the same family, type and protocol that was just made in the same
// network namespace: some values there are by sysctl.
Value changed_options(int fd, const OptionValues& fresh);
// Whether a program filters what the socket receives (SO_ATTACH_FILTER, SO_ATTACH_BPF).
bool has_filter(int fd);

// late: those that matter before bind(2), on a socket that has its address already by other means.
enum class OptionsWhen { before_bind, after, late };
// Sets them on a socket of ours. Reuse of addresses and IPV6_V6ONLY matter before bind(2), the rest may
// follow.
void set_options(int fd, const Value& options, OptionsWhen when);

// Sizes of buffers and the like that the kernel refuses to an ordinary user are reported by set_options as
// OsError; nothing is skipped silently.

}  // namespace virt
