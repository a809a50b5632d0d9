// The memory of a frozen process as the image tells it: every mapping, and which of its pages have to be
// read. What is shared becomes a MemoryObject of the context, read once whoever maps it.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "base/value.h"
#include "checkpoint/foothold.h"
#include "checkpoint/freeze.h"
#include "checkpoint/precopy.h"
#include "memory/page_store.h"
#include "memory/scan.h"
#include "memory/vma.h"
#include "resources/capture_context.h"

namespace virt {

// Pages to be read from one address space (or from a memory object through it, or from its descriptor).
struct PageJob {
  pid_t host_pid = 0;
  int fd = -1;                    // read from here instead, by offset
  std::vector<PageRange> ranges;  // addresses in the process, or offsets in the object
  uint64_t rebase = 0;            // added to an address to give the run's start (an object's offset)
  size_t owner = 0;               // index of the process, or of the memory object
  bool of_memory = false;
  bool live =
      false;  // the process runs: what it has unmapped meanwhile is passed over, pages of zeros are marked
};

// Which process maps a shared object where: it is read through one of them if there is no descriptor of it.
struct Mapper {
  size_t process = 0;
  Vma vma;
};

struct SurveyedMemory {
  std::vector<Value> mappings;  // per process, a list of records
  std::vector<PageJob> jobs;
  std::map<size_t, std::vector<PageRun>> known;  // per process: pages that the store has already
  std::map<int, std::vector<Mapper>> mappers;    // by MemoryObject id
  std::string vdso;                              // the vDSO's bytes, the same in every process
  uint64_t resident_bytes = 0;
};

// Adds one process (number `owner`) to what was surveyed so far.
// `precopy`: what was sent before, or null.
void survey_memory(const FrozenProcess& process, size_t owner, const std::vector<Vma>& vmas,
                   CaptureContext& context, const Precopy* precopy, SurveyedMemory& out);

// Adds the jobs for shared objects that have a descriptor.
void survey_objects(CaptureContext& context, SurveyedMemory& out);

// The pages of shared objects without one that process `owner` is the first to map: its foothold asks which
// exist (mincore(2); the page tables do not show those that only another process touched).
void survey_objects_through(FrozenProcess& process, size_t owner, Foothold& foothold, CaptureContext& context,
                            SurveyedMemory& out);

}  // namespace virt
