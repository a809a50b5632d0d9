#include "move/wire.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <ctime>

#include "base/error.h"
#include "base/fault.h"
#include "memory/page_hash.h"
#include "memory/page_store.h"
#include "sys/clocks.h"
#include "sys/file.h"

namespace virt {
namespace {

constexpr size_t kFilePiece = size_t{256} << 10;
constexpr size_t kMostParts = 16;  // open at a time

OsError lost(const char* call, int error, const char* doing) { return {"ERR_MOVE_LOST", call, error, doing}; }

OsError nonsense(const std::string& what) { return {"ERR_MOVE_PROTOCOL", "read", EPROTO, what}; }

// What an image consists of beside its pages; nothing that leads out of the directory.
bool is_part_name(std::string_view name) {
  const auto all = [](std::string_view text, const char* of) {
    return !text.empty() && text.find_first_not_of(of) == std::string_view::npos;
  };
  if (name.starts_with("files/")) return name.size() == 70 && all(name.substr(6), "0123456789abcdef");
  if (name.starts_with("relay-")) return name.size() <= 12 && all(name.substr(6), "0123456789");
  return name == "manifest.json" || name == "manifest.sha256" || name == "pages.sum" || name == "log";
}

}  // namespace

Wire::Wire(UniqueFd in, UniqueFd out)
    : in_(std::move(in)), out_(std::move(out)), stop_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  check(stop_.get(), "eventfd", "preparing a stream");
  for (const int fd : {in_.get(), out_.get()}) {
    const int flags = check(fcntl(fd, F_GETFL), "fcntl", "preparing a stream");
    check(fcntl(fd, F_SETFL, flags | O_NONBLOCK), "fcntl", "preparing a stream");
  }
}

void Wire::stop() {
  const uint64_t one = 1;
  (void)!write(stop_.get(), &one, sizeof one);
}

void Wire::close_out() {
  const std::lock_guard guard(sending_);
  out_.reset();
}

void Wire::wait(int fd, short events) {
  std::array<pollfd, 2> both{{{fd, events, 0}, {stop_.get(), POLLIN, 0}}};
  while (poll(both.data(), both.size(), -1) < 0) {
    if (errno != EINTR) throw OsError("poll", errno, "waiting for a stream");
  }
  if (both[1].revents != 0) throw OsError("ERR_ABORTED", "poll", ECANCELED, "the move was stopped");
}

void Wire::pace(size_t size) {
  const uint64_t limit = limit_;
  if (limit == 0) return;
  const int64_t now = monotonic_ns();
  paced_until_ns_ = std::max(paced_until_ns_, now) +
                    static_cast<int64_t>(static_cast<double>(size) * 1e9 / static_cast<double>(limit));
  // A tenth of a second may be sent at once: the stream then flows evenly enough, and short messages need not wait.
  constexpr int64_t kAhead = 100'000'000;
  const int64_t ahead = paced_until_ns_ - now - kAhead;
  if (ahead <= 0) return;
  pollfd stopped{stop_.get(), POLLIN, 0};
  if (poll(&stopped, 1, static_cast<int>(ahead / 1'000'000) + 1) > 0)
    throw OsError("ERR_ABORTED", "poll", ECANCELED, "the move was stopped");
}

void Wire::send(Type type, uint64_t number, std::vector<std::pair<const void*, size_t>> pieces) {
  size_t size = 0;
  for (const auto& piece : pieces) size += piece.second;
  const Header header{static_cast<uint32_t>(type), static_cast<uint32_t>(size), number};
  pieces.insert(pieces.begin(), {&header, sizeof header});
  std::vector<iovec> vectors;
  for (const auto& [data, length] : pieces) {
    char* at = static_cast<char*>(const_cast<void*>(data));
    if (length == 0) continue;
    if (!vectors.empty() && static_cast<char*>(vectors.back().iov_base) + vectors.back().iov_len == at) {
      vectors.back().iov_len += length;
    } else {
      vectors.push_back({at, length});
    }
  }
  const std::lock_guard guard(sending_);
  pace(size + sizeof header);
  for (size_t v = 0; v < vectors.size();) {
    const ssize_t n =
        writev(out_.get(), &vectors[v], static_cast<int>(std::min<size_t>(vectors.size() - v, 512)));
    if (n < 0) {
      if (errno == EINTR) continue;
      if (errno == EAGAIN) {
        wait(out_.get(), POLLOUT);
        continue;
      }
      throw lost("writev", errno, "sending to the other host");
    }
    sent_ += static_cast<uint64_t>(n);
    auto rest = static_cast<size_t>(n);
    while (v < vectors.size() && rest >= vectors[v].iov_len) rest -= vectors[v++].iov_len;
    if (rest > 0) {
      vectors[v].iov_base = static_cast<char*>(vectors[v].iov_base) + rest;
      vectors[v].iov_len -= rest;
    }
  }
}

void Wire::send_control(std::string_view message) {
  if (message.size() > kMostControlBytes)
    throw Bug("Wire: a control message of " + std::to_string(message.size()) + " bytes");
  fault_point("move-send");
  send(Type::control, 0, {{message.data(), message.size()}});
}

void Wire::send_pages(const char* const* pages, const uint64_t* hashes, size_t count, uint64_t first) {
  fault_point("move-send-pages");
  std::vector<std::pair<const void*, size_t>> pieces;
  pieces.reserve(count + 1);
  pieces.emplace_back(hashes, count * sizeof *hashes);
  for (size_t i = 0; i < count; ++i) pieces.emplace_back(pages[i], kPageBytes);
  send(Type::pages, first, std::move(pieces));
}

void Wire::send_file(int directory, const std::string& name) {
  const UniqueFd file(openat(directory, name.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  if (!file) throw OsError("openat", errno, "sending a file").at_path(name);
  send(Type::file, 0, {{name.data(), name.size()}});
  std::string piece(kFilePiece, '\0');
  uint64_t size = 0;
  for (;;) {
    const ssize_t n = pread(file.get(), piece.data(), piece.size(), static_cast<off_t>(size));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw OsError("pread", errno, "sending a file").at_path(name);
    if (n == 0) break;
    send(Type::file_data, 0, {{piece.data(), static_cast<size_t>(n)}});
    size += static_cast<uint64_t>(n);
  }
  send(Type::file_end, size, {});
}

void Wire::receive_into(int directory) {
  directory_.reset(fcntl(directory, F_DUPFD_CLOEXEC, 0));
  if (!directory_) throw OsError("fcntl", errno, "receiving into a directory");
}

bool Wire::read_all(void* data, size_t size, bool may_end) {
  for (size_t got = 0; got < size;) {
    const ssize_t n = read(in_.get(), static_cast<char*>(data) + got, size - got);
    if (n > 0) {
      got += static_cast<size_t>(n);
      received_ += static_cast<uint64_t>(n);
    } else if (n == 0) {
      if (may_end && got == 0) return false;
      throw lost("read", 0, "receiving from the other host: the stream has ended");
    } else if (errno == EAGAIN) {
      wait(in_.get(), POLLIN);
    } else if (errno != EINTR) {
      throw lost("read", errno, "receiving from the other host");
    }
  }
  return true;
}

std::optional<std::string> Wire::next() {
  for (;;) {
    Header header;
    if (!read_all(&header, sizeof header, true)) return std::nullopt;
    const auto type = static_cast<Type>(header.type);
    if (type == Type::control) {
      if (header.size > kMostControlBytes) throw nonsense("a control message that is too large");
      std::string message(header.size, '\0');
      read_all(message.data(), message.size(), false);
      fault_point("move-received");
      return message;
    }
    if (!directory_) throw nonsense("data, where none is expected");
    if (type == Type::pages) {
      take_pages(header);
    } else if (type == Type::file || type == Type::file_data || type == Type::file_end) {
      take_file(header);
    } else {
      throw nonsense("a frame of unknown type");
    }
  }
}

// The file of a part that is being written. Made by its first page and by nothing else, so that it is ours.
int Wire::part(uint64_t number) {
  const auto open =
      std::find_if(parts_.begin(), parts_.end(), [&](const auto& p) { return p.first == number; });
  if (open != parts_.end()) return open->second.get();
  const std::string name = part_name(number);
  const bool fresh = names_.insert(name).second;
  UniqueFd fd(openat(directory_.get(), name.c_str(),
                     O_WRONLY | O_CLOEXEC | O_NOFOLLOW | (fresh ? O_CREAT | O_EXCL : 0), 0600));
  if (!fd) throw OsError("openat", errno, "making a pages file").at_path(name);
  if (parts_.size() == kMostParts) parts_.erase(parts_.begin());
  parts_.emplace_back(number, std::move(fd));
  return parts_.back().second.get();
}

void Wire::take_pages(const Header& header) {
  constexpr size_t kEach = kPageBytes + sizeof(uint64_t);
  const size_t count = header.size / kEach;
  const uint64_t first = header.number % kPartPages;
  if (header.size % kEach != 0 || count == 0 || count > PageStore::kMostAtOnce ||
      header.number >= kMostPages || first + count > kPartPages)
    throw nonsense("pages that cannot be");
  std::array<uint64_t, PageStore::kMostAtOnce> hashes;
  read_all(hashes.data(), count * sizeof(uint64_t), false);
  buffer_.resize(PageStore::kMostAtOnce * kPageBytes);
  read_all(buffer_.data(), count * kPageBytes, false);
  for (size_t i = 0; i < count; ++i) {
    if (digest_page(buffer_.data() + i * kPageBytes).hash != hashes[i])
      throw OsError("ERR_IMAGE_DAMAGED", "read", 0,
                    "page " + std::to_string(header.number + i) + " is not what was sent");
  }
  const int fd = part(header.number / kPartPages);
  write_exactly(fd, buffer_.data(), count * kPageBytes, first * kPageBytes, "writing pages");
  // On its way to the disk at once: little is left for when the other end waits. What it says does not matter.
  (void)sync_file_range(fd, static_cast<off_t>(first * kPageBytes), static_cast<off_t>(count * kPageBytes),
                        SYNC_FILE_RANGE_WRITE);
}

void Wire::take_file(const Header& header) {
  const auto type = static_cast<Type>(header.type);
  if ((type == Type::file) == static_cast<bool>(file_)) throw nonsense("files out of order");
  if (type == Type::file_end) {
    if (header.number != file_size_ || header.size != 0) throw nonsense("a file of another size");
    file_.reset();
    return;
  }
  if (header.size > kFilePiece) throw nonsense("a piece of a file that is too large");
  buffer_.resize(std::max<size_t>(buffer_.size(), kFilePiece));
  read_all(buffer_.data(), header.size, false);
  if (type == Type::file_data) {
    write_exactly(file_.get(), buffer_.data(), header.size, file_size_, "writing a file of the image");
    file_size_ += header.size;
    return;
  }
  const std::string name(buffer_.data(), header.size);
  if (!is_part_name(name) || !names_.insert(name).second)
    throw nonsense("a file that no image has, or has twice");
  if (name.starts_with("files/") && mkdirat(directory_.get(), "files", 0700) != 0 && errno != EEXIST)
    throw OsError("mkdirat", errno, "making a directory of the image");
  file_.reset(
      openat(directory_.get(), name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!file_) throw OsError("openat", errno, "making a file of the image").at_path(name);
  file_size_ = 0;
}

}  // namespace virt
