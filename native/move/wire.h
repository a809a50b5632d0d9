// One end of a move: a byte stream to another host, cut into frames. Control messages are for whoever drives the move; pages
// and files go from memory to the stream, and from the stream into a directory, without being looked at by anybody else. What
// comes in is hostile: sizes, numbers and names are checked before anything is made of them.
//
// send_…() may be called by several threads; next() by one at a time, beside them. stop() ends both, from any thread.
// Errors: OsError ERR_MOVE_LOST (the stream ended in the middle, or failed), ERR_MOVE_PROTOCOL (what came makes no sense),
// ERR_IMAGE_DAMAGED (a page is not what was sent), ERR_ABORTED (stop()); what the directory's file system says.
//
//   Wire wire(std::move(in), std::move(out));
//   wire.send_control("{…}");
//   while (auto message = wire.next()) …
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "sys/fd.h"

namespace virt {

class Wire {
 public:
  static constexpr size_t kMostControlBytes = 1 << 20;
  static constexpr uint64_t kMostPages = uint64_t{1} << 34;  // 64 TiB

  // They may be the same open file; they become non-blocking.
  Wire(UniqueFd in, UniqueFd out);

  void send_control(std::string_view message);
  void send_pages(const char* const* pages, const uint64_t* hashes, size_t count, uint64_t first);
  // A file of the directory, under the name that it gets in the other's.
  void send_file(int directory, const std::string& name);

  // From now on pages and files are taken, into this directory (which is dup'ed).
  void receive_into(int directory);
  // The next control message; nothing at the end of the stream. What came before it is in the directory then.
  std::optional<std::string> next();
  // Whoever waits gets ERR_ABORTED, now and later.
  void stop();
  // After stop(): the descriptors go, and the other end hears an end. Of each direction by who uses it, or when nobody does.
  void close_out();
  void close_in() { in_.reset(); }
  // Bytes a second; 0: as many as go. From any thread.
  void limit(uint64_t bytes_per_second) { limit_ = bytes_per_second; }

  [[nodiscard]] uint64_t sent_bytes() const { return sent_; }
  [[nodiscard]] uint64_t received_bytes() const { return received_; }

 private:
  enum class Type : uint32_t { control = 1, pages = 2, file = 3, file_data = 4, file_end = 5 };
  struct Header {
    uint32_t type, size;  // of what follows
    uint64_t number;      // pages: of the first; file_end: how large it is
  };
  static_assert(sizeof(Header) == 16);

  void send(Type type, uint64_t number, std::vector<std::pair<const void*, size_t>> pieces);
  void write_all(const void* data, size_t size);
  void pace(size_t size);
  bool read_all(void* data, size_t size, bool may_end);
  void wait(int fd, short events);
  void take_pages(const Header& header);
  void take_file(const Header& header);
  int part(uint64_t number);

  UniqueFd in_, out_, stop_;
  std::mutex sending_;
  std::atomic<uint64_t> limit_{0}, sent_{0}, received_{0};
  int64_t paced_until_ns_ = 0;
  UniqueFd directory_, file_;
  uint64_t file_size_ = 0;
  std::set<std::string> names_;
  std::vector<std::pair<uint64_t, UniqueFd>> parts_;  // those that are written now, the latest last
  std::string buffer_;
};

}  // namespace virt
