// What several native tests need: numbers from a seed, a directory that goes away, children that are waited
// for.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace virt::test {

// splitmix64: the same numbers for the same seed on every machine.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t next();
  // 0 … below - 1.
  size_t below(size_t limit) { return static_cast<size_t>(next() % limit); }
  bool chance(size_t one_in) { return below(one_in) == 0; }

 private:
  uint64_t state_;
};

// A few changes of the kinds that damaged input shows: bits flipped, bytes replaced by ones that mean
// something to a parser, pieces cut out, doubled or swapped, the end cut off.
std::string damaged(std::string text, Random& random);

class TemporaryDirectory {
 public:
  TemporaryDirectory();
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  ~TemporaryDirectory();
  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] int fd() const { return fd_; }
  // Writes a file and gives its path.
  [[nodiscard]] std::string write(const std::string& name, std::string_view text) const;

 private:
  std::string path_;
  int fd_ = -1;
};

// A forked child that runs `body` and exits with what it gives; killed and reaped when this goes.
class Child {
 public:
  explicit Child(const std::function<int()>& body);
  Child(Child&& other) noexcept : pid_(other.pid_) { other.pid_ = -1; }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  ~Child();
  [[nodiscard]] pid_t pid() const { return pid_; }
  // Its wait status.
  int wait();
  void kill_and_wait();
  [[nodiscard]] bool alive() const;

 private:
  pid_t pid_ = -1;
};

// Memory that forked children share with this process, zeroed.
void* shared_memory(size_t size, int protection);

template <typename T>
class Shared {
 public:
  Shared() : object_(new (shared_memory(sizeof(T), 3)) T()) {}
  T* operator->() const { return object_; }
  T& operator*() const { return *object_; }

 private:
  T* object_;
};

// The vDSO that the kernel mapped into this process, a whole number of pages.
std::string own_vdso();

void sleep_us(long us);

}  // namespace virt::test
