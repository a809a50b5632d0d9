// A user namespace for the tests that need one of their own.
#pragma once

namespace virt::test {

// Puts this process into a user namespace in which it may do what virt-init may in a pod's, unless it is root. Once a
// process; it must have one thread.
void own_namespace();

}  // namespace virt::test
