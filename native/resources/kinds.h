// The table of kinds: one line, one file each. To add one: write its file, declare it here, list it in
// kinds.cc, add its record to src/image/manifest.ts and a program to test/programs.
#pragma once

#include <string>
#include <vector>

#include "resources/handle.h"

namespace virt {

extern const Kind kLauncherStream;  // launcher_stream.cc
extern const Kind kTerminal;        // terminal.cc
extern const Kind kMemfd;           // memfd.cc
extern const Kind kRegularFile;     // regular_file.cc
extern const Kind kDirectory;       // directory.cc
extern const Kind kPathHandle;      // directory.cc
extern const Kind kCharDevice;      // char_device.cc
extern const Kind kPipe;            // pipe.cc
extern const Kind kEventfd;         // eventfd.cc
extern const Kind kEpoll;           // epoll.cc
extern const Kind kTimerfd;         // timerfd.cc
extern const Kind kSignalfd;        // signalfd.cc
extern const Kind kUnixSocket;      // unix_socket.cc
extern const Kind kInetSocket;      // inet_socket.cc
extern const Kind kGiven;           // given.cc
extern const Kind kUnsupported;     // unsupported.cc

// All kinds, in the order in which they are asked. The last one recognises everything and refuses it by name.
const std::vector<const Kind*>& kinds();
const Kind* kind_named(const std::string& name);

}  // namespace virt
