// A thread for our own work in a process that is somebody else's otherwise: all signals blocked, a small stack. No exceptions: used
// by virt-init.
#pragma once

#include <pthread.h>

namespace virt {

// pthread_join(3) or pthread_detach(3) it. 0 or errno: EAGAIN.
int start_thread(void* (*run)(void*), void* argument, pthread_t* id);

}  // namespace virt
