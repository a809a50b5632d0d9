// relay: clients that come to the holder when the pod has gone on are led to its own listening sockets.
#include <doctest/doctest.h>

#include <list>

#include "relay/relay.h"
#include "test/relay_traffic.h"

using namespace virt;
using namespace virt::test;

namespace {

constexpr uint32_t kListener = 5;

UniqueFd accepted(int listener) {
  pollfd p{listener, POLLIN, 0};
  REQUIRE(poll(&p, 1, static_cast<int>(kPatienceNs / 1'000'000)) > 0);
  UniqueFd fd(accept4(listener, nullptr, nullptr, SOCK_CLOEXEC));
  REQUIRE(fd);
  return fd;
}

// A holder that keeps `old`, and a relay that leads its clients to `now`.
struct Forward : Hosts {
  explicit Forward(Options given = {}, bool leads = true) : Hosts(given) {
    REQUIRE(holder->keep(kListener, UniqueFd(fcntl(old.fd.get(), F_DUPFD_CLOEXEC, 0))) == 0);
    if (leads) REQUIRE(relay->lead(kListener, now.name(), sizeof now.address) == 0);
  }
  // Nobody else has it.
  void close_ours() { old.fd.reset(); }
  TcpListener old, now;
};

bool is_refused(const TcpListener& listener) {
  const UniqueFd s(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  return connect(s.get(), listener.name(), sizeof listener.address) != 0 && errno == ECONNREFUSED;
}

}  // namespace

TEST_CASE("who waited in the backlog and who comes later reaches the program") {
  const size_t before = open_descriptors();
  {
    Forward hosts;
    const UniqueFd early = hosts.old.connected();
    write_text(early.get(), "early");
    hosts.start_and_connect();
    const UniqueFd first = accepted(hosts.now.fd.get());
    CHECK(read_text(first.get(), 5) == "early");
    write_text(first.get(), "answer");
    CHECK(read_text(early.get(), 6) == "answer");
    UniqueFd late = hosts.old.connected();
    UniqueFd second = accepted(hosts.now.fd.get());
    write_text(second.get(), "who is it?");
    CHECK(read_text(late.get(), 10) == "who is it?");
    CHECK(hosts.holder->status().streams == 2);
    CHECK(hosts.holder->status().listeners == 1);
    CHECK(hosts.relay->clients().size() == 2);
    shutdown(late.get(), SHUT_WR);
    char c;
    CHECK(read_from(second.get(), &c, 1) == 0);
    second.reset();
    CHECK(read_from(late.get(), &c, 1) == 0);
    CHECK(wait_until(
        [&] { return hosts.holder->status().streams == 1 && hosts.relay->status().streams == 1; }));
    // It goes on as long as more may come.
    CHECK(hosts.holder->status().over == Over::no);
    hosts.relay->let_go();
    CHECK(wait_until([&] { return hosts.holder->status().listeners == 0; }));
    hosts.close_ours();
    CHECK(is_refused(hosts.old));
    shutdown(early.get(), SHUT_WR);
    shutdown(first.get(), SHUT_WR);
    CHECK(wait_until([&] {
      return hosts.holder->status().over == Over::ended && hosts.relay->status().over == Over::ended;
    }));
  }
  CHECK(open_descriptors() == before);
}

TEST_CASE("a relay that leads nobody on: the holder listens no more") {
  Forward hosts({}, false);
  const UniqueFd early = hosts.old.connected();
  hosts.close_ours();
  hosts.add(1, tcp_pair);
  hosts.start_and_connect();
  char c;
  CHECK(read_from(early.get(), &c, 1) == -ECONNRESET);
  CHECK(is_refused(hosts.old));
  CHECK(hosts.holder->status().listeners == 0);
}

TEST_CASE("nobody listens there: the client is reset") {
  Forward hosts;
  hosts.now.fd.reset();
  hosts.start_and_connect();
  const UniqueFd client = hosts.old.connected();
  char c;
  CHECK(read_from(client.get(), &c, 1) == -ECONNRESET);
  CHECK(wait_until([&] { return hosts.holder->status().streams == 0; }));
}

TEST_CASE("a unix socket's clients, more than its backlog takes") {
  Hosts hosts;
  sockaddr_un old{}, now{};
  const auto listener = [](sockaddr_un* address, const char* name, int backlog) {
    address->sun_family = AF_UNIX;
    const std::string whole = std::string("virt-run test ") + name + std::to_string(getpid());
    std::memcpy(address->sun_path + 1, whole.data(), whole.size());
    UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    REQUIRE(bind(fd.get(), reinterpret_cast<sockaddr*>(address), sizeof *address) == 0);
    REQUIRE(listen(fd.get(), backlog) == 0);
    return fd;
  };
  REQUIRE(hosts.holder->keep(kListener, listener(&old, "old", 100)) == 0);
  const UniqueFd there = listener(&now, "now", 1);
  REQUIRE(hosts.relay->lead(kListener, reinterpret_cast<sockaddr*>(&now), sizeof now) == 0);
  hosts.start_and_connect();
  std::list<UniqueFd> clients, programs;
  constexpr int kCount = 40;
  for (int i = 0; i < kCount; ++i) {
    clients.emplace_back(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    REQUIRE(connect(clients.back().get(), reinterpret_cast<sockaddr*>(&old), sizeof old) == 0);
    write_text(clients.back().get(), "hello");
  }
  REQUIRE(wait_until([&] { return hosts.relay->status().streams == kCount; }));
  for (int i = 0; i < kCount; ++i) {
    programs.push_back(accepted(there.get()));
    CHECK(read_text(programs.back().get(), 5) == "hello");
    write_text(programs.back().get(), "welcome");
  }
  for (const UniqueFd& client : clients) CHECK(read_text(client.get(), 7) == "welcome");
  CHECK(hosts.relay->status().reset == 0);
}

TEST_CASE("clients come and go while the tunnel is cut again and again") {
  const size_t before = open_descriptors();
  {
    Forward hosts;
    Random random(21);
    Proxy proxy(hosts.listener, [&random] { return Proxy::Fate{random.below(20'000), UINT64_MAX}; });
    hosts.start(&proxy.listener);
    struct One {
      UniqueFd client, program;
      std::string to, from;
      size_t sent = 0, answered = 0;
      std::string got, heard;
      bool shut = false, ended = false, reset = false;
    };
    std::list<One> all;
    std::vector<UniqueFd> unknown;  // accepted, whose is not known yet
    std::vector<std::string> said;
    constexpr size_t kCount = 1'500, kAtATime = 20, kName = 8;
    size_t made = 0, done = 0;
    const auto text = [&random](size_t size) {
      std::string bytes(size, 0);
      for (char& c : bytes) c = static_cast<char>(random.next());
      return bytes;
    };
    const auto push = [](int fd, const std::string& bytes, size_t* at) {
      if (*at == bytes.size()) return;
      const ssize_t n = send(fd, bytes.data() + *at, bytes.size() - *at, MSG_DONTWAIT | MSG_NOSIGNAL);
      if (n > 0) *at += static_cast<size_t>(n);
    };
    // True at the end.
    const auto pull = [](int fd, std::string* bytes) {
      char buffer[8192];
      ssize_t n;
      while ((n = recv(fd, buffer, sizeof buffer, MSG_DONTWAIT)) > 0)
        bytes->append(buffer, static_cast<size_t>(n));
      REQUIRE((n == 0 || errno == EAGAIN));
      return n == 0;
    };
    const int64_t end = monotonic_ns() + kPatienceNs;
    while (done < kCount) {
      REQUIRE(monotonic_ns() < end);
      if (made < kCount && all.size() < kAtATime) {
        One& one = all.emplace_back();
        char name[kName + 1];
        std::snprintf(name, sizeof name, "%08zu", made++);
        one.to = name + text(random.below(700));
        one.from = text(random.below(700));
        one.client = hosts.old.connected();
        // Some go before anybody has heard of them.
        one.reset = random.chance(10);
        if (one.reset) {
          reset_socket(one.client);
          all.pop_back();
          ++done;
          continue;
        }
      }
      pollfd p{hosts.now.fd.get(), POLLIN, 0};
      if (poll(&p, 1, 1) > 0) {
        unknown.push_back(accepted(hosts.now.fd.get()));
        said.emplace_back();
      }
      for (size_t i = unknown.size(); i-- > 0;) {
        char name[kName];
        const ssize_t n = recv(unknown[i].get(), name, kName, MSG_PEEK | MSG_DONTWAIT);
        const bool gone = n == 0 || (n < 0 && errno != EAGAIN);
        if (!gone && n != static_cast<ssize_t>(kName)) continue;
        for (One& one : all) {
          if (!gone && one.to.compare(0, kName, name, kName) == 0) {
            REQUIRE_FALSE(one.program);
            one.program = std::move(unknown[i]);
          }
        }
        REQUIRE((gone || !unknown[i]));
        unknown.erase(unknown.begin() + static_cast<ptrdiff_t>(i));
      }
      for (auto at = all.begin(); at != all.end();) {
        One& one = *at;
        push(one.client.get(), one.to, &one.sent);
        if (one.sent == one.to.size() && !one.shut) {
          shutdown(one.client.get(), SHUT_WR);
          one.shut = true;
        }
        const bool client_ended = pull(one.client.get(), &one.heard);
        if (one.program) {
          push(one.program.get(), one.from, &one.answered);
          if (!one.ended) one.ended = pull(one.program.get(), &one.got);
          if (one.ended && one.answered == one.from.size()) {
            CHECK(one.got == one.to);
            shutdown(one.program.get(), SHUT_WR);
          }
        }
        if (client_ended) {
          CHECK(one.got == one.to);
          CHECK(one.heard == one.from);
          ++done;
          at = all.erase(at);
        } else {
          ++at;
        }
      }
    }
    CHECK(proxy.tunnels > 100);
    MESSAGE(proxy.tunnels.load(), " tunnels");
    CHECK(wait_until([&] { return hosts.holder->status().streams + hosts.relay->status().streams == 0; }));
    hosts.relay->let_go();
    CHECK(wait_until([&] {
      return hosts.holder->status().over == Over::ended && hosts.relay->status().over == Over::ended;
    }));
  }
  CHECK(open_descriptors() == before);
}

TEST_CASE("frozen and thawed, a client that was not connected yet is led to where the pod is then") {
  Hosts hosts;
  const TcpListener old;
  REQUIRE(hosts.holder->keep(kListener, UniqueFd(fcntl(old.fd.get(), F_DUPFD_CLOEXEC, 0))) == 0);
  // A backlog that is full.
  const TcpListener full;
  REQUIRE(listen(full.fd.get(), 0) == 0);
  const UniqueFd filler = full.connected();
  REQUIRE(hosts.relay->lead(kListener, full.name(), sizeof full.address) == 0);
  hosts.start_and_connect();
  const UniqueFd client = old.connected();
  write_text(client.get(), "patience");
  REQUIRE(
      wait_until([&] { return hosts.relay->status().streams == 1 && hosts.relay->status().bytes_in == 8; }));
  CHECK(hosts.relay->clients().empty());
  std::string state;
  REQUIRE(hosts.relay->freeze(&state) == 0);
  CHECK(hosts.relay->leave());
  std::unique_ptr<Relay> moved;
  REQUIRE(Relay::thaw(state, key_of(7), hosts.options, &moved) == 0);
  hosts.relay = std::move(moved);
  // Who comes meanwhile waits.
  const UniqueFd next = old.connected();
  write_text(next.get(), "next");
  const TcpListener now;
  REQUIRE(hosts.relay->lead(kListener, now.name(), sizeof now.address) == 0);
  REQUIRE(hosts.relay->dial(hosts.listener.name(), sizeof hosts.listener.address) == 0);
  REQUIRE(hosts.relay->start() == 0);
  const UniqueFd program = accepted(now.fd.get()), other = accepted(now.fd.get());
  std::string got = read_text(program.get(), 4) + read_text(other.get(), 4);
  CHECK((got.find("pati") != std::string::npos && got.find("next") != std::string::npos));
  CHECK(hosts.relay->clients().size() == 2);
}

TEST_CASE("clients that nobody leads on are not opened, and not more than allowed") {
  // The relay's peer is a holder that knows the key and says anything.
  const auto says = [](const Record& record, bool leads) {
    TcpListener listener;
    const TcpListener now;
    Relay relay(Role::relay, key_of(7), {});
    REQUIRE(relay.add(1, unix_pair().a, Kind::stream) == 0);
    if (leads) REQUIRE(relay.lead(kListener, now.name(), sizeof now.address) == 0);
    REQUIRE(relay.dial(listener.name(), sizeof listener.address) == 0);
    REQUIRE(relay.start() == 0);
    Tunnel tunnel(Role::holder, key_of(7), accepted(listener.fd.get()), false);
    bool begun = false;
    REQUIRE(wait_until([&] {
      tunnel.on_readable();
      Record r;
      char* payload;
      while (tunnel.next(&r, &payload)) begun = begun || r.type == Type::ready;
      return begun;
    }));
    tunnel.put({Type::begin, Mark::none, 0, 1 << 20, 0, 0, 1}, nullptr);
    tunnel.put({Type::have, Mark::none, 0, 1, 0, 0, 0}, nullptr);
    tunnel.put({Type::ready, Mark::none, 0, 0, 0, 0, 0}, nullptr);
    tunnel.put(record, nullptr);
    tunnel.flush();
    REQUIRE(wait_until([&] { return relay.status().violations == 1 || relay.status().streams == 2; }));
    return relay.status().violations == 0;
  };
  const Record good{Type::open, Mark::none, 0, kFirstClient + 1, 0, kListener, 1};
  CHECK(says(good, true));
  CHECK_FALSE(says(good, false));
  Record bad = good;
  bad.id = 1;
  CHECK_FALSE(says(bad, true));
  bad = good;
  bad.id = 2;
  CHECK_FALSE(says(bad, true));
  bad = good;
  bad.reserved = kListener + 1;
  CHECK_FALSE(says(bad, true));
  bad = good;
  bad.offset = 0;
  CHECK_FALSE(says(bad, true));
  CHECK_FALSE(says({Type::enough, Mark::none, 0, 0, 0, 0, 0}, true));
  CHECK_FALSE(says({Type::leads, Mark::none, 0, kListener, 0, 0, 0}, true));
}
