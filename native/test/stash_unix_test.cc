// relay/stash: unix sockets with names that this host has not. Runs as root, or in a user namespace of its own.
#include <sys/stat.h>

#include <utility>
#include <vector>

#include "relay/stash.h"
#include "test/stash_pairs.h"

using namespace virt;
using namespace virt::test;
using namespace std::literals;

TEST_CASE("unix sockets have the names that they had elsewhere, and the host sees none of them") {
  own_namespace();
  const std::string mounts = read_file("/proc/self/mountinfo");
  const std::string directory = "/virt-run-stash-test";
  const std::string longest = directory + std::string(108 - directory.size() - 1, 'x').insert(0, "/");
  REQUIRE(longest.size() == 108);
  const std::string names[] = {directory + "/deep/er/server.sock",
                               directory + "/./a//b/../c.sock",
                               longest,
                               "relative.sock",
                               "../up/relative.sock",
                               "/"s + std::string(1, 'r'),
                               "\0abstract"s,
                               "\0"s,
                               "\0with\0nul"s,
                               "\0"s + std::string(107, 'y')};
  Stash stash;
  REQUIRE(stash.open() == 0);
  for (const int type : {SOCK_STREAM, SOCK_SEQPACKET}) {
    for (const std::string& name : names) {
      CAPTURE(name);
      const StashAddress named = unix_name(name), none;
      std::vector<StashPair> pairs;
      for (int i = 0; i < 3; ++i) {  // several connections to one server
        StashPair p;
        REQUIRE(stash.pair(request(none, named, type), &p) == 0);
        CHECK(own_name(p.program) == unnamed());
        CHECK(peer_name(p.program) == bytes(named));
        put(p.relay, "queue");
        CHECK(receive(p.program) == "queue");
        pairs.push_back(std::move(p));
        // The server's side of such connections.
        REQUIRE(stash.pair(request(named, none, type), &p) == 0);
        CHECK(own_name(p.program) == bytes(named));
        CHECK(peer_name(p.program) == unnamed());
        put(p.program, "answer");
        CHECK(receive(p.relay) == "answer");
        pairs.push_back(std::move(p));
      }
    }
    const StashAddress a = unix_name("/run/client"), b = unix_name("/run/server");
    const StashPair both = checked_pair(stash, request(a, b, type));
  }
  StashRequest neither;
  neither.family = AF_UNIX;
  StashPair p;
  REQUIRE(stash.pair(neither, &p) == 0);
  CHECK(own_name(p.program) == unnamed());
  CHECK(peer_name(p.program) == unnamed());
  CHECK(stash.rooms() == 1);
  ucred credentials{};
  socklen_t size = sizeof credentials;
  CHECK(getsockopt(p.program.get(), SOL_SOCKET, SO_PEERCRED, &credentials, &size) == 0);
  CHECK(credentials.pid == getpid());
  struct stat st {};
  CHECK(stat(directory.c_str(), &st) != 0);
  CHECK(stat("relative.sock", &st) != 0);
  CHECK(stat("/r", &st) != 0);
  CHECK(read_file("/proc/self/mountinfo") == mounts);
}

TEST_CASE("unix datagram sockets reach their server's end, and are answered if they have a name") {
  own_namespace();
  Stash stash;
  REQUIRE(stash.open() == 0);
  StashPair log;
  for (int i = 0; i < 3; ++i) {
    REQUIRE(stash.pair(request(StashAddress{}, unix_name("/dev/log"), SOCK_DGRAM), &log) == 0);
    CHECK(own_name(log.program) == unnamed());
    CHECK(peer_name(log.program) == bytes(unix_name("/dev/log")));
    put(log.program, "line");
    CHECK(receive(log.relay) == "line");
  }
  checked_pair(stash, request(unix_name("/tmp/me"), unix_name("/dev/log"), SOCK_DGRAM));
  checked_pair(stash, request(unix_name("\0me"s), unix_name("\0they"s), SOCK_DGRAM));
  CHECK(stash.rooms() == 1);
}
