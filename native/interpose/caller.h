// What is read of a thread that stands before a call: its memory, and the paths it means. Runs inside the pod's
// namespaces. No exceptions: used by virt-init.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <string>

namespace virt {

struct InterposedCall;

// "/proc/TID/NAME".
std::string proc_file(pid_t tid, const char* name);
// The beginning of a file of /proc. Empty if it cannot be read.
std::string read_start(const std::string& path);
// The number after a word of such text; 0 if it is not there.
pid_t number_after(const std::string& text, const char* word);
// The pid of a pidfd's process as another pid namespace has it, whose /proc `proc` is (a directory, or -1); 0 if that cannot
// be told.
pid_t pid_seen_by(int proc, int process);
// How much could be read.
size_t read_memory(pid_t tid, uint64_t from, void* to, size_t size);
// The path that is meant by two arguments of the call (a directory's, -1 for the working one, and a path's, -1 for the
// call's descriptor itself), absolute as the pod sees it. `root` is the caller's. Empty if it cannot be told.
std::string path_of_call(pid_t tid, const std::string& root, const InterposedCall& call, const uint64_t* args,
                         int directory, int path);

}  // namespace virt
