// Pumps the connections of a detached pod between two hosts. The holder, where the pod was, keeps the outside sockets; the
// relay, where it is now, has for each of them the end of a local pair whose other end is the program's. One tunnel, sealed
// with the pod's key, carries all of them; it may be cut and made again at any time, nothing is lost, doubled or reordered.
// One class for both, they differ in who dials.
//
// Threads: start() makes one, with all signals blocked; every method may be called from any other thread and waits for
// microseconds, freeze() for its end. No exceptions: used by virt-init. There start() is called where threads may be
// started: not by whoever has the pod's filter.
//
// Errors are errno values. What a socket can't be told: ETIMEDOUT and the like become ECONNRESET for whoever is at the other
// end, and a unix socket's peer sees an end of file and EPIPE where TCP's would see ECONNRESET.
//
//   Relay holder(Role::holder, key);
//   holder.add(1, std::move(outside), Kind::stream);
//   holder.accept_from(std::move(listener));
//   if (int error = holder.start()) …
//   // poll holder.news_fd(); holder.status().over says when to go
#pragma once

#include <netinet/in.h>
#include <pthread.h>
#include <sys/socket.h>

#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "relay/channel.h"
#include "relay/datagrams.h"
#include "relay/handshake.h"
#include "relay/tunnel.h"
#include "sys/fd.h"

namespace virt::relay {

// stream: stream sockets, TCP and unix. datagram: sockets that keep boundaries and may lose.
enum class Kind : uint8_t { stream, datagram };

struct Options {
  // How long a tunnel may be cut before all connections are reset at both ends, milliseconds. A holder that no relay has ever
  // come to waits for ever.
  uint32_t cut_limit_ms = 60'000;
  // Most that is kept of a connection, bytes each way.
  uint32_t window_bytes = 1 << 20;
};

// Channels of clients that came to the holder when the pod had gone on are numbered from here; all others below.
inline constexpr uint32_t kFirstClient = uint32_t{1} << 31;

// ended: no channel is left (more may be added), and no new client is waited for. limit_passed: the tunnel was cut for too long. replaced: another relay has the
// connections: the pod has gone on to another host, or its image was reattached there before.
enum class Over : uint8_t { no, ended, limit_passed, replaced };

struct Status {
  uint32_t streams = 0, datagrams = 0;  // that live
  uint32_t listeners = 0;               // whose new clients become channels
  bool connected = false;
  bool met = false;                      // connected, now or once
  int64_t since_ns = 0;                  // connected, or cut: CLOCK_MONOTONIC
  uint64_t bytes_in = 0, bytes_out = 0;  // of payload, from and to the tunnel
  uint32_t reset = 0;          // connections that were ended because the tunnel could not go on with them
  uint32_t violations = 0;     // tunnels ended for what the peer did, or because it did not prove the key
  bool other_version = false;  // a peer speaks another version of the protocol
  Over over = Over::no;
};

class Relay {
 public:
  Relay(Role role, const Key& key, Options options = {});
  Relay(const Relay&) = delete;
  Relay& operator=(const Relay&) = delete;
  // Closes everything. A connection is closed as close(2) does.
  ~Relay();

  // A channel; it has the same number at both ends. EEXIST: there is one, or was. EPROTOTYPE:
  // not of this kind (SOCK_SEQPACKET is of none). The descriptor must be the last one of its socket, or the end of a
  // connection is not seen by whoever is at the other end. After thaw(): the socket of one that lives.
  int add(uint32_t id, UniqueFd socket, Kind kind);
  int add(uint32_t id, std::unique_ptr<DatagramEnd> end);
  // After thaw() and before add(): what the program had in its socket's queue and has not read. ENOENT: the channel has ended;
  // EINVAL: it never got as much.
  int put_back(uint32_t id, std::string_view unread);
  // A holder's listening socket, TCP or unix; there may be several.
  void accept_from(UniqueFd listener);
  // A holder's listening socket of the pod, by its number in the image; it is left alone until a relay has come. If that leads
  // its clients on they become channels, else it is closed. EPROTOTYPE: it is none of streams. EEXIST.
  int keep(uint32_t id, UniqueFd listener);
  // Copies of those whose clients wait for the pod to come back from somewhere; none while a relay has them.
  std::vector<std::pair<uint32_t, UniqueFd>> waiting_listeners();
  // Closes them: new clients are for somebody else.
  void refuse_clients();
  // A relay's: new clients of a listening socket that the holder keeps are led to this address, where the pod listens now, in the
  // network and the file system of whoever calls start(). Before that. EINVAL.
  int lead(uint32_t listener, const sockaddr* address, socklen_t size);
  // The ends, on a relay's side, of connections to the pod's listening sockets: inode and addresses (sockaddr).
  struct Client {
    uint32_t id;
    uint64_t inode;
    std::string local, peer;
  };
  std::vector<Client> clients();
  // Where a relay finds its holder. It connects, and again after each cut, at once and then every 50 ms … 2 s. EINVAL.
  int dial(const sockaddr* address, socklen_t size);
  // No relay is to come from now on, or may again: who has the sockets by other means does not share them. False: one has
  // come, and nothing is barred.
  bool bar(bool barred);
  // Nobody has the other ends of our sockets any more: what they wrote goes out, and then each ends, whether its peer has
  // closed it or not, and no new client is taken. Without channels it is over at once, or when the holder knows that.
  void let_go();
  // A stream socket that somebody else has connected to the peer.
  void adopt(UniqueFd stream);
  // Channels that were thawed and got no socket are reset. EAGAIN, ENOMEM, EMFILE; EALREADY.
  int start();

  Status status();
  // Readable after something in the status has changed: connected, over. Read it (eventfd(2)), then ask.
  [[nodiscard]] int news_fd() const { return news_.get(); }

  // Stops the thread and gives all connections as bytes, with what lies in our sockets' queues. The programs must be stopped
  // already; bytes that one of them still has in a send queue need another call. EPERM: a program has not taken what its
  // socket was sent, and the kernel does not give it back; ENOBUFS: there is too much; ESHUTDOWN: it is over. Then, or if the
  // capture fails otherwise, go_on(). Of EPERM and ENOBUFS `cause` is the channel.
  int freeze(std::string* state, uint32_t* cause = nullptr);
  int go_on();
  // After freeze(), when its bytes are safe: lets the holder wait for whoever goes on with them, however long that takes. False:
  // it could not be told, and waits as after a cut.
  bool leave();
  // The same connections in another process, with the next epoch: its tunnel replaces those of the former ones. Needs sockets
  // (add), where to dial, and start(). EINVAL: the bytes are no such state.
  static int thaw(std::string_view state, const Key& key, Options options, std::unique_ptr<Relay>* relay);

 private:
  // A tunnel and how far it has come.
  struct Link {
    Link(Role role, const Key& key, UniqueFd fd, bool connecting)
        : tunnel(role, key, std::move(fd), connecting) {}
    Tunnel tunnel;
    uint64_t serial = 0;
    int64_t deadline_ns = 0;  // for everything before it is ready
    int64_t ready_ns = 0;
    uint32_t peer_window = 0, peer_instance = 0;
    uint64_t opened = 0;  // of how many clients the peer has heard
    uint32_t watched = 0;
    bool refused = false;
    bool begun = false;  // the peer has proved the key and said its epoch
    bool ready = false;  // both know what the other has
  };
  enum class Source : uint8_t { wake, listener, link, stream, datagram, client };
  // A listening socket of the pod, at its holder.
  struct Kept {
    uint32_t id;
    UniqueFd fd;
    uint64_t led_by = 0;  // serial of the link whose relay leads its clients on
    uint32_t watched = UINT32_MAX;
  };
  // Where a relay leads the clients of one.
  struct Lead {
    sockaddr_storage address{};
    socklen_t size = 0;
  };

  static void* run_thread(void* self);
  int start_thread();
  void stop_thread();
  void wake();
  void news();
  void run();
  int timeout_ms() const;
  void watch(int fd, Source source, uint64_t number, uint32_t events, uint32_t* watched) const;
  void dispatch(Source source, uint64_t number, uint32_t events);
  void keep_times();
  void tick();

  // relay_links.cc: tunnels come and go
  void add_link(UniqueFd fd, bool connecting);
  void take_waiting();
  void accept_some(int listener);
  void pause_accepting();
  void watch_listeners(bool on);
  void connect_now();
  void on_link(Link* link, uint32_t events);
  void after_link(Link* link);
  void drop(Link* link);
  Link* link_of(uint64_t serial);
  void make_current(Link* link);
  bool take(Link* link, const Record& record, char* payload);
  bool take_begin(Link* link, const Record& record);
  bool take_have(Link* link, const Record& record);
  [[nodiscard]] bool is_another(const Link& link) const;
  void on_ready(Link* link);
  void end_all(Over why);

  // relay_pump.cc: what goes through
  [[nodiscard]] bool is_connected() const { return current_ != nullptr && current_->ready; }
  bool take_data(const Record& record, const char* payload);
  void settle(Channel* channel, uint32_t id);
  void settle(DatagramChannel* channel, uint32_t id);
  void settle_datagrams();
  void pump();
  void pump_once(Tunnel* tunnel);
  void note_end();
  void wait_until_settled() const;

  // relay_clients.cc: new ones
  [[nodiscard]] static bool is_client(uint32_t id) { return id >= kFirstClient; }
  Channel* stream(uint32_t id);
  Channel* add_client(uint32_t id, uint32_t listener, uint64_t opened);
  void forget_clients();
  Kept* kept_of(uint32_t id);
  void close_kept(uint64_t led_by);
  void lead_on(Link* link);
  void say_open(Link* link, Channel* channel);
  void settle_clients();
  void accept_client(Kept* kept);
  void say_leads(Tunnel* tunnel) const;
  bool take_client(const Record& record);
  void connect_client(Channel* channel);
  void connect_again();

  const Role role_;
  const Key key_;
  const Options options_;
  std::mutex mutex_;  // held by the thread but while it waits
  pthread_t thread_{};
  bool running_ = false, stop_ = false, started_ = false;
  UniqueFd epoll_, wake_, news_;

  std::unordered_map<uint32_t, std::unique_ptr<Channel>> streams_;  // null: it has ended
  std::unordered_map<uint32_t, std::unique_ptr<DatagramChannel>> datagrams_;
  uint32_t living_streams_ = 0, living_datagrams_ = 0;
  std::deque<uint32_t> queue_;   // have something to send, in turn
  std::vector<uint32_t> due_;    // are to be acknowledged now
  std::vector<uint32_t> noted_;  // at the next tick: acknowledged, memory given back
  int64_t tick_ns_ = 0;
  std::unique_ptr<char[]> scratch_;

  std::vector<Kept> kept_;                    // a holder's
  std::unordered_map<uint32_t, Lead> leads_;  // a relay's
  uint64_t opened_ = 0;                       // so many clients have become channels
  uint32_t clients_ = 0;                      // of them live
  std::vector<uint32_t> ended_clients_;       // to be forgotten
  std::vector<uint32_t> unconnected_;         // to be tried again
  int64_t clients_ns_ = 0, again_ns_ = 0;
  bool leads_on_ = false;  // or did: that there is no channel is no sign that there will be none
  bool enough_ = false;    // the holder has said that no new client will come

  std::vector<UniqueFd> listeners_, adopted_;
  bool listening_ = false;
  std::vector<std::unique_ptr<Link>> links_;
  Link* current_ = nullptr;
  uint64_t serial_ = 0, epoch_ = 1;
  // Which of the relays of this epoch we are; a holder's: which it has. One image may be reattached twice, and only one of
  // the two can go on with its connections.
  uint32_t instance_ = 0;
  sockaddr_storage address_{};
  socklen_t address_size_ = 0;
  int64_t now_ns_ = 0, connect_ns_ = 0, accept_ns_ = 0, cut_ns_ = 0;
  int64_t backoff_ns_ = 0;
  bool seen_peer_ = false;  // sockets are left alone before
  bool peer_left_ = false;  // it said so: no cut is too long
  bool barred_ = false;
  bool letting_go_ = false;
  bool datagrams_watched_ = false;
  Status status_;
};

}  // namespace virt::relay
