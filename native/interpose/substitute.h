// A call made in the caller's place, with another path or address, and with no more rights than the caller has. It may
// wait (connect(2), a FIFO): everything here is for a thread that nobody else waits for. No exceptions: used by virt-init.
#pragma once

#include "interpose/call.h"
#include "interpose/recorder.h"
#include "interpose/rules.h"
#include "interpose/socket_names.h"

namespace virt {

// Gives the calling thread the caller's user, groups, capabilities and umask (credentials(7)), for good. 0 or errno.
int become(pid_t tid);

// Makes the call as the rule redirects it, and answers. The thread has become the caller.
void substitute(const Listener& listener, Call call, const Rule& rule, SocketNames& names,
                Recorder& recorder);

}  // namespace virt
