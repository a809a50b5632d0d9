// relay: who may connect, and what a hostile peer can do.
#include <doctest/doctest.h>

#include "relay/relay.h"
#include "test/relay_traffic.h"

using namespace virt;
using namespace virt::test;

namespace {

// The relay's part of a handshake done by hand: a peer that knows the key and can say anything afterwards.
class HandMadePeer {
 public:
  explicit HandMadePeer(const TcpListener& holder, unsigned char key = 7)
      : tunnel_(Role::relay, key_of(key), holder.connected(), false) {}
  // Whether the holder takes it.
  bool greet() {
    return wait_until([this] {
             tunnel_.on_readable();
             return tunnel_.state() != TunnelState::greeting;
           }) &&
           tunnel_.state() == TunnelState::open;
  }
  void say(const Record& record, std::string_view payload = {}) {
    tunnel_.put(record, payload.data());
    tunnel_.flush();
  }
  // Begins as a relay that has these channels, each with nothing received.
  void begin(uint64_t epoch, uint32_t channels, uint64_t received = 0) {
    say({Type::begin, Mark::none, 0, 1 << 20, 0, 0, epoch});
    for (uint32_t id = 1; id <= channels; ++id) say({Type::have, Mark::none, 0, id, 0, 0, received});
    say({Type::ready, Mark::none, 0, 0, 0, 0, 0});
  }
  // The next record of a type, passing over others. False: the holder has ended it.
  bool hear(Type type, Record* record) {
    bool found = false;
    wait_until([&] {
      tunnel_.on_readable();
      char* payload;
      while (!found && tunnel_.next(record, &payload)) found = record->type == type;
      return found || tunnel_.state() == TunnelState::ended;
    });
    return found;
  }
  bool was_ended() {
    Record record;
    return !hear(static_cast<Type>(0), &record);
  }

 private:
  Tunnel tunnel_;
};

}  // namespace

TEST_CASE("without the key nothing is learnt and nothing goes through") {
  Hosts hosts({}, 8);
  hosts.add(1, tcp_pair);
  hosts.start();
  REQUIRE(wait_until([&] { return hosts.holder->status().violations >= 2; }));
  CHECK_FALSE(hosts.holder->status().connected);
  CHECK_FALSE(hosts.relay->status().connected);
  CHECK(hosts.holder->status().streams == 1);
  CHECK_FALSE(HandMadePeer(hosts.listener, 8).greet());
  // The right one still can.
  HandMadePeer peer(hosts.listener);
  CHECK(peer.greet());
}

TEST_CASE("garbage is answered with nothing") {
  Hosts hosts;
  hosts.add(1, tcp_pair);
  hosts.holder->accept_from(UniqueFd(fcntl(hosts.listener.fd.get(), F_DUPFD_CLOEXEC, 0)));
  REQUIRE(hosts.holder->start() == 0);
  Random random(5);
  for (int i = 0; i < 50; ++i) {
    const UniqueFd peer = hosts.listener.connected();
    std::string text(80 + random.below(500), 0);
    for (char& c : text) c = static_cast<char>(random.next());
    (void)!send(peer.get(), text.data(), text.size(), MSG_NOSIGNAL);
    char c;
    CHECK(recv(peer.get(), &c, 1, 0) <= 0);
  }
  // Silent ones do not keep others out.
  std::vector<UniqueFd> silent;
  for (int i = 0; i < 40; ++i) silent.push_back(hosts.listener.connected());
  HandMadePeer peer(hosts.listener);
  CHECK(peer.greet());
}

TEST_CASE("another version is told ours") {
  Hosts hosts;
  hosts.holder->accept_from(UniqueFd(fcntl(hosts.listener.fd.get(), F_DUPFD_CLOEXEC, 0)));
  REQUIRE(hosts.holder->start() == 0);
  const UniqueFd peer = hosts.listener.connected();
  Hello hello = Handshake::version_only(Role::relay);
  hello.version = 77;
  REQUIRE(send(peer.get(), &hello, sizeof hello, MSG_NOSIGNAL) == sizeof hello);
  Hello answer{};
  REQUIRE(recv(peer.get(), &answer, sizeof answer, MSG_WAITALL) == sizeof answer);
  CHECK(answer.version == kVersion);
  CHECK(wait_until([&] { return hosts.holder->status().other_version; }));
}

TEST_CASE("a recorded hello opens nothing") {
  Hosts hosts;
  hosts.add(1, tcp_pair);
  hosts.start_and_connect();
  Handshake handshake(Role::relay, key_of(7));
  const Hello hello = handshake.make();
  for (int i = 0; i < 3; ++i) {
    const UniqueFd peer = hosts.listener.connected();
    REQUIRE(send(peer.get(), &hello, sizeof hello, MSG_NOSIGNAL) == sizeof hello);
    Hello answer{};
    REQUIRE(recv(peer.get(), &answer, sizeof answer, MSG_WAITALL) == sizeof answer);
    const char frame[64] = {40, 0, 0, 0};
    REQUIRE(send(peer.get(), frame, sizeof frame, MSG_NOSIGNAL) == sizeof frame);
    char c;
    CHECK(recv(peer.get(), &c, 1, 0) <= 0);
  }
  CHECK(hosts.relay->status().connected);
  Traffic traffic(6);
  traffic.both_ways(hosts, 100'000);
  traffic.run();
}

TEST_CASE("what no honest peer says ends its tunnel and no connection") {
  const uint32_t window = 1 << 20;
  const std::vector<std::pair<Record, std::string>> lies = {
      {{Type::data, Mark::none, 0, 99, 1, 0, 0}, "x"},            // a channel that never was
      {{Type::data, Mark::none, 0, 1, 1, 0, 7}, "x"},             // a gap
      {{Type::data, Mark::fin, 0, 1, 2, 0, 0}, "xx"},             // a mark is one byte
      {{Type::data, static_cast<Mark>(9), 0, 1, 1, 0, 0}, "x"},   // no mark
      {{Type::data, Mark::none, 0, 1, 0, 0, 0}, ""},              // nothing
      {{Type::data, Mark::none, 1, 1, 1, 0, 0}, "x"},             // an address
      {{Type::acked, Mark::none, 0, 1, 0, 0, 5}, ""},             // more than was sent
      {{Type::acked, Mark::none, 0, 1, 0, 0, UINT64_MAX}, ""},    //
      {{Type::begin, Mark::none, 0, window, 0, 0, 1}, ""},        // again
      {{static_cast<Type>(200), Mark::none, 0, 1, 0, 0, 0}, ""},  // no type
      {{Type::datagram, Mark::none, 0, 1, 1, 0, 0}, "x"},         // a stream
  };
  for (const auto& [record, payload] : lies) {
    Hosts hosts;
    hosts.add(1, tcp_pair);
    hosts.holder->accept_from(UniqueFd(fcntl(hosts.listener.fd.get(), F_DUPFD_CLOEXEC, 0)));
    REQUIRE(hosts.holder->start() == 0);
    HandMadePeer peer(hosts.listener);
    REQUIRE(peer.greet());
    peer.begin(1, 1);
    Record ready;
    REQUIRE(peer.hear(Type::ready, &ready));
    peer.say(record, payload);
    CHECK_MESSAGE(peer.was_ended(), static_cast<int>(record.type), " ", record.offset);
    CHECK(wait_until([&] { return hosts.holder->status().violations == 1; }));
    CHECK(hosts.holder->status().streams == 1);
  }
}

TEST_CASE("more than the window ends the tunnel") {
  Options options;
  options.window_bytes = 4096;
  Hosts hosts(options);
  hosts.add(1, [] { return unix_pair(); });
  hosts.holder->accept_from(UniqueFd(fcntl(hosts.listener.fd.get(), F_DUPFD_CLOEXEC, 0)));
  REQUIRE(hosts.holder->start() == 0);
  HandMadePeer peer(hosts.listener);
  REQUIRE(peer.greet());
  peer.begin(1, 1);
  const std::string text(60'000, 'x');
  peer.say({Type::data, Mark::none, 0, 1, static_cast<uint32_t>(text.size()), 0, 0}, text);
  CHECK(peer.was_ended());
}

TEST_CASE("damaged frames: the tunnel is made again, the connections do not notice") {
  Hosts hosts;
  hosts.add(4, tcp_pair);
  Random random(8);
  unsigned tunnels = 0;
  Proxy proxy(hosts.listener, [&] {
    // From some time on the tunnel is sound, for a violation is punished by a pause.
    return Proxy::Fate{UINT64_MAX,
                       ++tunnels > 16 ? UINT64_MAX : random.below(tunnels % 2 == 0 ? 500 : 100'000)};
  });
  hosts.start(&proxy.listener);
  Traffic traffic(8);
  traffic.both_ways(hosts, 1'000'000);
  traffic.run();
  CHECK(hosts.holder->status().violations + hosts.relay->status().violations > 0);
  CHECK(hosts.relay->status().reset == 0);
}

TEST_CASE("a higher epoch replaces, a lower one is refused") {
  Hosts hosts;
  hosts.add(1, tcp_pair);
  hosts.start_and_connect();
  HandMadePeer next(hosts.listener);
  REQUIRE(next.greet());
  next.begin(2, 1);
  Record record;
  CHECK(next.hear(Type::ready, &record));
  // It is told, also if it still talks.
  HandMadePeer former(hosts.listener);
  REQUIRE(former.greet());
  former.begin(1, 200'000);
  CHECK(former.hear(Type::refused, &record));
  CHECK(record.offset == 2);
  // The relay that was replaced resets its ends.
  CHECK(wait_until([&] { return hosts.relay->status().over == Over::replaced; }));
  char c;
  CHECK(recv(hosts.program[0].get(), &c, 1, 0) == -1);
  CHECK(errno == ECONNRESET);
}

TEST_CASE("of two relays with one image, the first goes on and the other is refused") {
  Hosts hosts;
  hosts.add(1, tcp_pair);
  hosts.start_and_connect();
  // Another start of the same image: the same key and epoch, and another number.
  Relay second(Role::relay, key_of(7));
  Pair pair = tcp_pair();
  REQUIRE(second.add(1, std::move(pair.b), Kind::stream) == 0);
  REQUIRE(second.dial(hosts.listener.name(), sizeof hosts.listener.address) == 0);
  REQUIRE(second.start() == 0);
  CHECK(wait_until([&] { return second.status().over == Over::replaced; }));
  CHECK_FALSE(second.status().met);
  char c;
  CHECK(recv(pair.a.get(), &c, 1, 0) == -1);
  CHECK(errno == ECONNRESET);
  // The first has not noticed.
  CHECK(hosts.holder->status().over == Over::no);
  REQUIRE(send(hosts.outside[0].get(), "x", 1, 0) == 1);
  CHECK(recv(hosts.program[0].get(), &c, 1, 0) == 1);
  CHECK(hosts.holder->status().reset == 0);
}

TEST_CASE("a holder that is barred takes no relay until it is not") {
  Hosts hosts;
  hosts.add(1, tcp_pair);
  REQUIRE(hosts.holder->bar(true));
  hosts.start();
  HandMadePeer peer(hosts.listener);
  REQUIRE(peer.greet());
  peer.begin(1, 1);
  CHECK(peer.was_ended());
  CHECK_FALSE(hosts.holder->status().met);
  // Its socket is as its program left it.
  REQUIRE(hosts.holder->bar(false));
  CHECK(wait_until([&] { return hosts.relay->status().connected; }));
  CHECK_FALSE(hosts.holder->bar(true));
}

TEST_CASE("what is let go of ends once it is delivered, though its peer has not closed") {
  Hosts hosts;
  hosts.add(2, tcp_pair);
  hosts.start_and_connect();
  REQUIRE(send(hosts.program[0].get(), "bye", 3, 0) == 3);
  for (UniqueFd& fd : hosts.program) fd.reset();
  hosts.relay->let_go();
  CHECK(wait_until([&] { return hosts.relay->status().over == Over::ended; }));
  CHECK(wait_until([&] { return hosts.holder->status().over == Over::ended; }));
  char text[8];
  CHECK(recv(hosts.outside[0].get(), text, sizeof text, 0) == 3);
  CHECK(recv(hosts.outside[0].get(), text, sizeof text, 0) == 0);
}
