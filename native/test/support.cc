#include "test/support.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <stdexcept>

using namespace std::literals;

namespace virt::test {

uint64_t Random::next() {
  state_ += 0x9e3779b97f4a7c15ULL;
  uint64_t z = state_;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
  return z ^ (z >> 31);
}

std::string damaged(std::string text, Random& random) {
  static constexpr std::string_view kTelling = "\0\n\t :-()/0x9fF\xff\x80\x7f"sv;
  for (size_t changes = 1 + random.below(4); changes > 0; --changes) {
    if (text.empty()) {
      text = std::string(random.below(20), static_cast<char>(random.next()));
      continue;
    }
    const size_t at = random.below(text.size());
    const size_t length = std::min(text.size() - at, 1 + random.below(1 + random.below(64)));
    switch (random.below(8)) {
      case 0:
        text[at] = static_cast<char>(text[at] ^ (1 << random.below(8)));
        break;
      case 1:
        text[at] = kTelling[random.below(kTelling.size())];
        break;
      case 2:
        text[at] = static_cast<char>(random.next());
        break;
      case 3:
        text.erase(at, length);
        break;
      case 4:
        text.insert(at, text.substr(at, length));
        break;
      case 5:
        text.resize(at);
        break;
      case 6:
        std::rotate(text.begin() + static_cast<ptrdiff_t>(at),
                    text.begin() + static_cast<ptrdiff_t>(at + length), text.end());
        break;
      default:
        // Eight bytes at once: lengths, counts and offsets that lie far outside.
        for (size_t i = at; i < std::min(text.size(), at + 8); ++i)
          text[i] = random.chance(2) ? '\xff' : '\x7f';
    }
  }
  return text;
}

TemporaryDirectory::TemporaryDirectory() {
  char name[] = "/tmp/virt-run-test-XXXXXX";
  if (mkdtemp(name) == nullptr) throw std::runtime_error("no temporary directory can be made");
  path_ = name;
  fd_ = open(name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

TemporaryDirectory::~TemporaryDirectory() {
  close(fd_);
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

std::string TemporaryDirectory::write(const std::string& name, std::string_view text) const {
  std::string path = path_ + "/" + name;
  FILE* f = std::fopen(path.c_str(), "wb");
  if (f == nullptr) throw std::runtime_error("a file of a test cannot be made");
  const size_t written = std::fwrite(text.data(), 1, text.size(), f);
  if (std::fclose(f) != 0 || written != text.size())
    throw std::runtime_error("a file of a test cannot be written");
  return path;
}

Child::Child(const std::function<int()>& body) : pid_(fork()) {
  if (pid_ < 0) throw std::runtime_error("fork failed");
  if (pid_ > 0) return;
  prctl(PR_SET_PDEATHSIG, SIGKILL);  // children of a child that is killed go with it
  int code = 120;
  try {
    code = body();
  } catch (const std::exception& e) {
    std::fprintf(stderr, "a child of a test: %s\n", e.what());
  }
  _exit(code);
}

Child::~Child() {
  if (pid_ > 0) kill_and_wait();
}

int Child::wait() {
  int status = 0;
  while (waitpid(pid_, &status, __WALL) < 0 && errno == EINTR) {
  }
  pid_ = -1;
  return status;
}

void Child::kill_and_wait() {
  kill(pid_, SIGKILL);
  (void)wait();
}

bool Child::alive() const {
  siginfo_t info{};
  return waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == 0;
}

void* shared_memory(size_t size, int protection) {
  void* p = mmap(nullptr, size, protection, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) throw std::runtime_error("no shared memory can be mapped");
  return p;
}

std::string own_vdso() {
  const auto* start =
      reinterpret_cast<const char*>(getauxval(AT_SYSINFO_EHDR));  // NOLINT(performance-no-int-to-ptr)
  size_t size = 4096;
  unsigned char in_core;
  while (size < (64 << 10) && mincore(const_cast<char*>(start) + size, 4096, &in_core) == 0) size += 4096;
  return {start, size};
}

void sleep_us(long us) {
  timespec t{us / 1'000'000, us % 1'000'000 * 1000};
  while (nanosleep(&t, &t) != 0 && errno == EINTR) {
  }
}

}  // namespace virt::test
