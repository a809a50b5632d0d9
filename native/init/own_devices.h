// A pod's own /dev: the devices that are the same for everybody, the pod's terminals, and nothing that leads to hardware.
#pragma once

#include <string>
#include <vector>

#include "init/step.h"
#include "sys/fd.h"

namespace virt::init {

class OwnDevices {
 public:
  // Holds the devices, as /dev has them now: remaps count, attributes that are set later do not.
  Step take();
  // Mounts a tmpfs with them on /dev, writable still.
  Step mount();

 private:
  struct Node {
    std::string name;
    UniqueFd tree;
  };
  std::vector<Node> nodes_;
};

}  // namespace virt::init
